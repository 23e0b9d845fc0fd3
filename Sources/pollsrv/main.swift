import Arguments
import Linux
import Server

PollServer.main()
