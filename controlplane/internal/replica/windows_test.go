package replica

const windowVariable = "NARU_REPLICA_WINDOW"

func dieInWindow(string) int { return 0 }
