//go:build unix && !linux

package soak

import "syscall"

// attributes puts a part into its own process group: Ctrl-C does not reach the group, and a signal reaches all of it.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
