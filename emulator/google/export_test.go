//go:build unix

package google

// Group returns the id of the emulator's process group.
func Group(p *Process) int { return p.cmd.Process.Pid }
