//go:build unix

// Package waltest injects disk faults into open write-ahead logs. The tests of packages wal, firestore and pubsub cover the
// package.
package waltest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// BreakLog makes every further write to the log in dir fail. A server of this process must have the log open.
func BreakLog(t testing.TB, dir string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "log-*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log in %s: %v", dir, err)
	}
	var want unix.Stat_t
	if err := unix.Stat(logs[len(logs)-1], &want); err != nil {
		t.Fatal(err)
	}
	readOnly, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	const maxDescriptor = 4096
	for fd := range maxDescriptor {
		var got unix.Stat_t
		if unix.Fstat(fd, &got) == nil && got.Dev == want.Dev && got.Ino == want.Ino {
			// Dup2 keeps the descriptor valid, so the server's Close closes no unrelated file.
			if err := unix.Dup2(int(readOnly.Fd()), fd); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s is not open in this process", logs[len(logs)-1])
}
