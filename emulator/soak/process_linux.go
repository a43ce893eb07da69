package soak

import "syscall"

// attributes puts a part into its own process group: Ctrl-C does not reach the group, and a signal reaches all of it.
// The kernel kills the part when this process dies, even while the part is stopped.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
