// swift-tools-version: 6.3
import PackageDescription

let strict: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]
/// For the targets that only compute: nothing in them may step outside the memory-safe language.
let pure: [SwiftSetting] = strict + [.strictMemorySafety()]

let package = Package(
    name: "pollsrv",
    products: [
        .executable(name: "pollsrv", targets: ["pollsrv"]),
        .executable(name: "pollclient", targets: ["pollclient"]),
        .executable(name: "reserveclient", targets: ["reserveclient"]),
        .executable(name: "pollctl", targets: ["pollctl"]),
        .executable(name: "pollsim", targets: ["pollsim"]),
    ],
    targets: [
        .target(name: "Wire", swiftSettings: pure),
        .target(name: "Journal", dependencies: ["Wire"], swiftSettings: pure),
        .target(
            name: "Storage", dependencies: ["Journal", "Wire", "Linux"], swiftSettings: strict),
        .target(name: "Replication", dependencies: ["Wire"], swiftSettings: pure),
        .target(name: "Services", dependencies: ["Wire"], swiftSettings: pure),
        .target(
            name: "Simulator",
            dependencies: ["Wire", "Journal", "Replication", "Services", "Linux", "Storage"],
            swiftSettings: pure),
        .target(name: "Arguments", swiftSettings: pure),
        .target(name: "CLinux"),
        .target(name: "Linux", dependencies: ["CLinux"], swiftSettings: strict),
        .target(
            name: "Server",
            dependencies: [
                "Wire", "Replication", "Services", "Linux", "Journal", "Storage", "Arguments",
            ],
            swiftSettings: strict + [.enableExperimentalFeature("Lifetimes")]),
        .target(
            name: "Client",
            dependencies: ["Wire", "Replication", "Services", "Linux"],
            swiftSettings: strict),
        .executableTarget(
            name: "pollsrv",
            dependencies: [
                "Server", "Arguments", "Linux", "Replication", "Services", "Storage", "Wire",
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "pollclient",
            dependencies: ["Client", "Arguments", "Linux", "Wire"], swiftSettings: strict),
        .executableTarget(
            name: "reserveclient",
            dependencies: ["Client", "Arguments", "Linux", "Wire"], swiftSettings: strict),
        .executableTarget(
            name: "pollctl",
            dependencies: ["Client", "Journal", "Storage", "Wire", "Linux", "Arguments"],
            swiftSettings: strict),
        .executableTarget(
            name: "pollsim",
            dependencies: ["Simulator", "Replication", "Linux", "Arguments"],
            swiftSettings: strict),
        .testTarget(
            name: "ServicesTests", dependencies: ["Services", "Wire"], swiftSettings: strict),
        .testTarget(name: "LinuxTests", dependencies: ["Linux"], swiftSettings: strict),
        .testTarget(name: "WireTests", dependencies: ["Wire"], swiftSettings: strict),
        .testTarget(
            name: "JournalTests", dependencies: ["Journal", "Wire"], swiftSettings: strict),
        .testTarget(
            name: "StorageTests",
            dependencies: ["Storage", "Journal", "Simulator", "Wire", "Linux", "pollctl"],
            swiftSettings: strict),
        .testTarget(
            name: "ReplicationTests", dependencies: ["Replication", "Services", "Wire"],
            swiftSettings: strict),
        .testTarget(
            name: "ClientTests",
            dependencies: ["Client", "Linux", "Replication", "Services", "Wire"],
            swiftSettings: strict),
        .testTarget(
            name: "SimulatorTests", dependencies: ["Simulator", "Replication", "pollsim"],
            swiftSettings: strict),
        // Drives the programs from outside; it needs them built, and imports nothing of them.
        .testTarget(
            name: "ProcessTests",
            dependencies: ["pollsrv", "pollclient", "reserveclient", "pollctl", "pollsim"],
            // C source that a test builds itself, to be loaded into servers.
            exclude: ["Shim"],
            swiftSettings: strict),
    ],
    swiftLanguageModes: [.v6]
)
