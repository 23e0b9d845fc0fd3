extension RandomAccessCollection {
    /// Where the elements begin of which `isBehind` holds; the end if there are none.
    ///
    /// Precondition: behind one of which it holds it holds of all. Complexity: O(log n) calls.
    func partitioningIndex(where isBehind: (Element) -> Bool) -> Index {
        var (low, count) = (startIndex, self.count)
        while count > 0 {
            let half = count / 2
            let middle = index(low, offsetBy: half)
            if isBehind(self[middle]) {
                count = half
            } else {
                low = index(after: middle)
                count -= half + 1
            }
        }
        return low
    }
}
