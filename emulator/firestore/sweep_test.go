package firestore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "cloud.google.com/go/firestore/apiv1/firestorepb"
)

const ledger = "projects/p/databases/d/documents/deliveries"

// openExpiring opens a store on a directory, with a policy that lets the documents in ledger live 15 minutes.
func openExpiring(t *testing.T, dir string) *store {
	t.Helper()
	ttl, err := parseTTLPolicies([]TTLPolicy{{Collection: "deliveries", Field: "expireAt", Limit: 15 * time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	j, initial, err := openJournal(dir, 64<<10, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return newStore(time.Now, initial, j)
}

// putEntries commits n documents in ledger that expire in three days, with a kilobyte of data each.
func putEntries(t *testing.T, s *store, prefix string, n int) {
	t.Helper()
	_, err := s.commit(t.Context(), func(b *builder) error {
		for i := range n {
			name, err := parseDocumentName(fmt.Sprintf("%s/%s-%d", ledger, prefix, i))
			if err != nil {
				return err
			}
			now := timestampOf(b.time)
			b.put(name, newDocument(&pb.Document{Name: name.full, CreateTime: now, UpdateTime: now, Fields: map[string]*pb.Value{
				"expireAt": {ValueType: &pb.Value_TimestampValue{TimestampValue: timestampOf(b.time + 72*time.Hour.Microseconds())}},
				"event":    {ValueType: &pb.Value_StringValue{StringValue: strings.Repeat("x", 1<<10)}}}}))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// kept returns the documents in ledger and their size in bytes.
func kept(s *store) (docs, bytes int) {
	current, _ := s.read()
	if c := current.collection(ledger); c != nil {
		c.docs.Scan(func(d *document) bool {
			docs, bytes = docs+1, bytes+d.size
			return true
		})
	}
	if n := current.expiring.Len(); n != docs {
		return -1, n
	}
	return docs, bytes
}

func TestHoursOfWritesKeepMemoryAndDiskFlat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const perMinute = 20
		s := openExpiring(t, dir)
		time.Sleep(sweepInterval / 2) // no sweep at the times of the writes and checks below
		for minute := range 6 * 60 {
			putEntries(t, s, fmt.Sprint(minute), perMinute)
			time.Sleep(time.Minute)
			if minute%60 != 59 {
				continue
			}
			docs, bytes := kept(s)
			if want := 15 * perMinute; docs != want || bytes > want*(1<<10+200) {
				t.Errorf("after %d minutes it keeps %d documents with %d bytes, want %d documents", minute+1, docs, bytes, want)
			}
			s.mu.Lock()
			states, written := len(s.history), s.kept
			s.mu.Unlock()
			// Each minute has two commits: 20 documents written, 20 expired.
			if states > 2*60+2 || written > 61*perMinute*(1<<10+200) {
				t.Errorf("after %d minutes the history has %d states with %d bytes", minute+1, states, written)
			}
			if size := dirSize(t, dir); size > 3<<20 {
				t.Errorf("after %d minutes the journal has %d bytes", minute+1, size)
			}
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}

		time.Sleep(9 * time.Minute)
		s = openExpiring(t, dir)
		time.Sleep(2 * sweepInterval)
		if docs, _ := kept(s); docs != 5*perMinute {
			t.Errorf("a restart after 9 minutes keeps %d documents, want those of the last 5 minutes before", docs)
		}
		time.Sleep(2 * time.Hour)
		s.mu.Lock()
		if n := len(s.history); n != 1 {
			t.Errorf("after two quiet hours the history has %d states", n)
		}
		s.mu.Unlock()
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	})
}

func dirSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil && !os.IsNotExist(err) { // a compaction removes files
			t.Fatal(err)
		}
		if err == nil {
			size += info.Size()
		}
	}
	return size
}

func TestASweepIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openExpiring(t, dir)
		putEntries(t, s, "burst", 2*maxExpired+1)
		time.Sleep(15*time.Minute - time.Millisecond)
		s.mu.Lock()
		before := len(s.history)
		s.mu.Unlock()
		time.Sleep(2 * sweepInterval)
		if docs, _ := kept(s); docs != 0 {
			t.Errorf("%d documents are left", docs)
		}
		s.mu.Lock()
		if n := len(s.history) - before; n != 3 {
			t.Errorf("%d documents were deleted in %d commits, want 3", 2*maxExpired+1, n)
		}
		s.mu.Unlock()
		if n := s.expired.Load(); n != 2*maxExpired+1 {
			t.Errorf("counted %d deletes", n)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	})
}
