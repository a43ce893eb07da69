//go:build !unix

package wal

import (
	"io"
	"os"
)

// lockFile opens the file without a lock: the platform has no flock. Two servers on one directory are not detected.
func lockFile(path string) (io.Closer, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
