//go:build !unix

package firestore

import (
	"io"
	"os"
)

// lockFile does not keep other servers out where there is no flock.
func lockFile(path string) (io.Closer, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
}
