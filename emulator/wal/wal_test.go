package wal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"parley.internal/emulator/wal"
	"parley.internal/emulator/wal/waltest"
)

func text(s string) wal.Record {
	return func(b []byte) ([]byte, error) { return append(b, s...), nil }
}

// open opens the log in dir and returns it with the replayed records. The test closes the log.
func open(t testing.TB, dir string, compactAt int64) (*wal.Log, []string) {
	t.Helper()
	var records []string
	l, err := wal.Open(dir, wal.Options{Format: "test 1", CompactAt: compactAt}, func(r []byte) error {
		records = append(records, string(r))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l, records
}

func write(t testing.TB, l *wal.Log, records ...string) {
	t.Helper()
	for _, r := range records {
		b, err := l.Append(text(r))
		if err == nil {
			err = b.Wait()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func closeLog(t testing.TB, l *wal.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// content opens and closes the log in dir and returns its records.
func content(t testing.TB, dir string) []string {
	t.Helper()
	l, records := open(t, dir, 0)
	closeLog(t, l)
	return records
}

func TestRecordsAreReplayedInTheOrderOfTheAppends(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	l, records := open(t, dir, 0)
	if len(records) != 0 {
		t.Errorf("a new log has %q", records)
	}
	write(t, l, "a", "b")
	if err := l.AppendLazy(text("c")); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	if got := content(t, dir); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("replayed %q", got)
	}
}

func TestConcurrentAppendsAreAllDurable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, 1)
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 50 {
				write(t, l, fmt.Sprintf("%d-%02d", w, i))
				l.Compact(func(s *wal.Snapshot) error { return s.Replay(func(r []byte) error { return s.Add(text(string(r))) }) })
			}
		})
	}
	writers.Wait()
	closeLog(t, l)
	got := content(t, dir)
	if len(got) != 400 {
		t.Fatalf("%d records, want 400", len(got))
	}
	for w := range 8 {
		prefix := fmt.Sprint(w, "-")
		own := slices.DeleteFunc(slices.Clone(got), func(r string) bool { return !strings.HasPrefix(r, strings.ReplaceAll(prefix, " ", "")) })
		if len(own) != 50 || !slices.IsSorted(own) {
			t.Errorf("writer %d: %q", w, own)
		}
	}
}

func TestAnEncodingThatFailsAppendsNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, 0)
	fault := errors.New("fault")
	if _, err := l.Append(text("half"), func([]byte) ([]byte, error) { return nil, fault }); !errors.Is(err, fault) {
		t.Errorf("append: %v", err)
	}
	if _, err := l.Append(text("")); err == nil {
		t.Error("an empty record was accepted")
	}
	write(t, l, "whole")
	closeLog(t, l)
	if got := content(t, dir); !slices.Equal(got, []string{"whole"}) {
		t.Errorf("replayed %q", got)
	}
}

func TestCompactionReplacesTheLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, 100)
	for i := range 100 {
		write(t, l, fmt.Sprintf("record %02d", i))
		l.Compact(func(s *wal.Snapshot) error {
			var last string
			if err := s.Replay(func(r []byte) error { last = string(r); return nil }); err != nil {
				return err
			}
			return s.Add(text(last))
		})
	}
	closeLog(t, l)
	got := content(t, dir)
	if got[0] == "record 00" || got[len(got)-1] != "record 99" || !slices.IsSorted(got) {
		t.Errorf("replayed %q", got)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*-*")); err != nil || len(files) != 2 {
		t.Errorf("files %v, %v, want a snapshot and a log", files, err)
	}
}

func TestFailedCompactionLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, 1)
	write(t, l, "a")
	fault := errors.New("fault")
	l.Compact(func(*wal.Snapshot) error { return fault })
	write(t, l, "b")
	if err := l.Close(); !errors.Is(err, fault) {
		t.Errorf("close: %v", err)
	}
	if got := content(t, dir); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("replayed %q", got)
	}
}

func TestCrashDuringCompactionLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, 0)
	write(t, l, "first")
	closeLog(t, l)
	// The process died after it started the next log file, with half a snapshot.
	for name, content := range map[string]string{"log-0000000000000001": "", "snapshot.tmp": "half"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, records := open(t, dir, 0)
	write(t, l, "second")
	closeLog(t, l)
	if got := append(records, "second"); !slices.Equal(got, []string{"first", "second"}) || !slices.Equal(content(t, dir), got) {
		t.Errorf("replayed %q, then %q", records, content(t, dir))
	}
}

// onlyLog returns the path of the only log file in dir.
func onlyLog(t testing.TB, dir string) string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "log-*"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	return logs[0]
}

func TestTornTailIsCutOff(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		tear func(log []byte) []byte
		want []string
	}{
		"the last record lacks a byte":     {func(log []byte) []byte { return log[:len(log)-1] }, []string{"a", "b"}},
		"a few bytes of a frame":           {func(log []byte) []byte { return append(log, 1, 2, 3) }, []string{"a", "b", "c"}},
		"a frame without a payload":        {func(log []byte) []byte { return append(log, 200, 0, 0, 0, 1, 2, 3, 4) }, []string{"a", "b", "c"}},
		"the last record has a wrong byte": {func(log []byte) []byte { log[len(log)-1] ^= 1; return log }, []string{"a", "b"}},
		"zeros":                            {func(log []byte) []byte { return append(log, make([]byte, 100)...) }, []string{"a", "b", "c"}},
		"nothing is left":                  {func([]byte) []byte { return nil }, nil},
		"half a header":                    {func(log []byte) []byte { return log[:5] }, nil},
		"zeros in place of a header":       {func([]byte) []byte { return make([]byte, 8) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, _ := open(t, dir, 0)
			write(t, l, "a", "b", "c")
			closeLog(t, l)
			data, err := os.ReadFile(onlyLog(t, dir))
			if err == nil {
				err = os.WriteFile(onlyLog(t, dir), tt.tear(data), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			l, records := open(t, dir, 0)
			if !slices.Equal(records, tt.want) {
				t.Errorf("replayed %q, want %q", records, tt.want)
			}
			write(t, l, "new")
			closeLog(t, l)
			if got, want := content(t, dir), append(tt.want, "new"); !slices.Equal(got, want) {
				t.Errorf("then replayed %q, want %q", got, want)
			}
		})
	}
}

func TestUnreadableDirectoriesAreRefusedWithAdvice(t *testing.T) {
	t.Parallel()
	flip := func(at int) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			data, err := os.ReadFile(onlyLog(t, dir))
			if err != nil {
				t.Fatal(err)
			}
			data[at] ^= 1
			if err := os.WriteFile(onlyLog(t, dir), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tt := range map[string]struct {
		change func(t *testing.T, dir string)
		want   string
	}{
		"damage before the last record": {flip(len("wal 1 test 1\n") + 9), "is damaged"},
		"another format":                {flip(4), "does not have the format"},
		"an unknown file": {func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "journal"), []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "does not belong to this log"},
		"a missing log file": {func(t *testing.T, dir string) {
			if err := os.Rename(onlyLog(t, dir), filepath.Join(dir, "log-0000000000000001")); err != nil {
				t.Fatal(err)
			}
		}, "is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			l, _ := open(t, dir, 0)
			write(t, l, "first", "second")
			closeLog(t, l)
			tt.change(t, dir)
			l, err := wal.Open(dir, wal.Options{Format: "test 1"}, func([]byte) error { return nil })
			if err == nil {
				closeLog(t, l)
				t.Fatal("the directory was accepted")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "delete") {
				t.Errorf("error %q, want %q and advice", err, tt.want)
			}
		})
	}
}

func TestDirectoryBelongsToOneLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, 0)
	if second, err := wal.Open(dir, wal.Options{Format: "test 1"}, func([]byte) error { return nil }); err == nil {
		second.Close()
		t.Error("a second log was opened on the same directory")
	}
	closeLog(t, l)
	content(t, dir)
}

func TestBrokenDiskFailsEveryLaterAppend(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, _ := open(t, dir, 0)
	write(t, l, "durable")
	waltest.BreakLog(t, dir)
	for range 2 {
		b, err := l.Append(text("lost"))
		if err == nil {
			err = b.Wait()
		}
		if err == nil || errors.Is(err, wal.ErrClosed) {
			t.Errorf("append: %v, want the error of the disk", err)
		}
	}
	if err := l.Close(); err == nil {
		t.Error("close has no error")
	}
	if got := content(t, dir); !slices.Equal(got, []string{"durable"}) {
		t.Errorf("replayed %q", got)
	}
}

func TestClosedLogRefusesAppends(t *testing.T) {
	t.Parallel()
	l, _ := open(t, t.TempDir(), 0)
	closeLog(t, l)
	if _, err := l.Append(text("late")); !errors.Is(err, wal.ErrClosed) {
		t.Errorf("append: %v, want ErrClosed", err)
	}
}

// FuzzReplay checks that Open accepts the intact part of any log file again, alone, before a torn record, and before
// another record.
func FuzzReplay(f *testing.F) {
	dir := f.TempDir()
	l, _ := open(f, dir, 0)
	write(f, l, "a", "bc")
	closeLog(f, l)
	whole, err := os.ReadFile(onlyLog(f, dir))
	if err != nil {
		f.Fatal(err)
	}
	header := len("wal 1 test 1\n")
	records := whole[header:]
	f.Add([]byte{})
	f.Add(records)
	f.Add(slices.Concat(records, records))
	f.Add(records[:len(records)-1])
	f.Add(slices.Concat(records, make([]byte, 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, "log-0000000000000000")
		reopen := func(data []byte) (records []string, intact []byte, err error) {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := wal.Open(dir, wal.Options{Format: "test 1"}, func(r []byte) error { records = append(records, string(r)); return nil })
			if err != nil {
				return nil, nil, err
			}
			closeLog(t, l)
			intact, err = os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return records, intact, nil
		}
		first, intact, err := reopen(slices.Concat(whole[:header], data))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(data, intact[header:]) {
			t.Fatal("the intact part is not a prefix")
		}
		for _, tail := range [][]byte{nil, {1}, records[:8]} {
			again, _, err := reopen(slices.Concat(intact, tail))
			if err != nil || !slices.Equal(again, first) {
				t.Fatalf("first %q, then %q, %v", first, again, err)
			}
		}
		again, _, err := reopen(slices.Concat(intact, records))
		if err != nil || !slices.Equal(again, append(first, "a", "bc")) {
			t.Fatalf("with two more records: %q, %v", again, err)
		}
	})
}
