//go:build unix && !linux

package soak

import "syscall"

// attributes put a part into a process group of its own, which Ctrl-C does not reach and which can be killed whole.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
