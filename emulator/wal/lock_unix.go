//go:build unix

package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// lockFile takes an exclusive lock on a file. The lock ends with the process, also after a crash.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another server uses the directory: stop it, or use another directory: %w", err), f.Close())
	}
	return fileLock{f}, nil
}

type fileLock struct{ *os.File }

// Close unlocks before closing. A child process forked at this moment shares the lock until the child runs its program.
// Closing the file alone would leave the lock to the child.
func (l fileLock) Close() error {
	return errors.Join(syscall.Flock(int(l.Fd()), syscall.LOCK_UN), l.File.Close())
}
