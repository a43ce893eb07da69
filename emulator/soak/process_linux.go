package soak

import "syscall"

// attributes put a part into a process group of its own, which Ctrl-C does not reach and which can be killed whole, and
// have the kernel kill it when this process dies, even while the part is stopped and can't see that for itself.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
