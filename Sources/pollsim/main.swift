PollSim.main()
