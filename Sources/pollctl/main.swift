Control.main()
