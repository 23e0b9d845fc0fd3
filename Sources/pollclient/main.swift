Voter.main()
