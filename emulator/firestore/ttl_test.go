package firestore_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	client "cloud.google.com/go/firestore"

	"parley.internal/emulator/firestore"
)

func TestExpiredDocumentsAreDeleted(t *testing.T) {
	t.Parallel()
	start := time.Now()
	var clock atomic.Pointer[time.Time]
	clock.Store(&start)
	srv, err := firestore.New(firestore.WithClock(func() time.Time { return *clock.Load() }), firestore.WithTTL(
		firestore.TTLPolicy{Collection: "c", Field: "expireAt"},
		firestore.TTLPolicy{Collection: "limited", Field: "life.end", Limit: 15 * time.Minute},
	))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	b := connect(t, "ours", srv.Addr())
	in := func(d time.Duration) *time.Time { at := start.Add(d); return &at }
	docs := []struct {
		path   string
		fields fields
		gone   time.Duration // the document is gone at this time and not earlier; 0: it stays
	}{
		{"c/past", fields{"expireAt": instant(start.Add(-time.Hour))}, time.Nanosecond},
		{"c/before1970", fields{"expireAt": instant(time.Unix(-1, 0))}, time.Nanosecond},
		{"c/hour", fields{"expireAt": instant(*in(time.Hour))}, time.Hour},
		{"c/hour/c/below", fields{"expireAt": instant(*in(time.Hour))}, time.Hour},
		{"c/hour/other/below", fields{"expireAt": instant(*in(time.Hour))}, 0},
		{"c/day", fields{"expireAt": instant(*in(24 * time.Hour))}, 24 * time.Hour},
		{"c/text", fields{"expireAt": str("2000-01-01T00:00:00Z")}, 0},
		{"c/number", fields{"expireAt": integer(1)}, 0},
		{"c/none", nil, 0},
		{"other/past", fields{"expireAt": instant(start.Add(-time.Hour))}, 0},
		{"limited/early", fields{"life": object(fields{"end": instant(*in(time.Minute))})}, time.Minute},
		{"limited/late", fields{"life": object(fields{"end": instant(*in(30 * 24 * time.Hour))})}, 16 * time.Minute},
		{"limited/none", fields{"life": object(nil)}, 0},
	}
	for _, d := range docs {
		b.mustCommit(t, update(b.root+"/"+d.path, d.fields))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, now := range []time.Duration{time.Nanosecond, time.Minute, 14 * time.Minute, 16 * time.Minute, time.Hour, 24 * time.Hour, 1000 * time.Hour} {
		clock.Store(in(now))
		for _, d := range docs {
			if d.gone != 0 && d.gone <= now {
				awaitDelete(ctx, t, b.client.Doc(d.path))
			}
		}
		for _, d := range docs {
			if d.gone == 0 || d.gone > now {
				if _, err := b.get(t, d.path); err != nil {
					t.Errorf("%s after %s: %v", d.path, now, err)
				}
			}
		}
	}
	if n := srv.Counts().Deletes; n != 7 {
		t.Errorf("counted %d deletes, want 7", n)
	}
}

// awaitDelete waits until a listener sees that the document does not exist.
func awaitDelete(ctx context.Context, t *testing.T, doc *client.DocumentRef) {
	t.Helper()
	it := doc.Snapshots(ctx)
	defer it.Stop()
	for {
		snap, err := it.Next()
		if err != nil && snap == nil {
			t.Fatalf("%s: %v", doc.Path, err)
		}
		if !snap.Exists() {
			return
		}
	}
}

func TestAWriteMovesTheExpiry(t *testing.T) {
	t.Parallel()
	start := time.Now()
	var clock atomic.Pointer[time.Time]
	clock.Store(&start)
	srv, err := firestore.New(firestore.WithClock(func() time.Time { return *clock.Load() }),
		firestore.WithTTL(firestore.TTLPolicy{Collection: "c", Field: "expireAt", Limit: time.Hour}))
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	b := connect(t, "ours", srv.Addr())
	day := start.Add(24 * time.Hour)
	for _, id := range []string{"touched", "kept", "untouched"} {
		b.mustCommit(t, update(b.root+"/c/"+id, fields{"expireAt": instant(day)}))
	}
	later := start.Add(45 * time.Minute)
	clock.Store(&later)
	b.mustCommit(t, update(b.root+"/c/touched", fields{"n": integer(1)}, "n"))
	b.mustCommit(t, update(b.root+"/c/kept", nil, "expireAt")) // without the field it does not expire
	end := start.Add(90 * time.Minute)
	clock.Store(&end)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	awaitDelete(ctx, t, b.client.Doc("c/untouched"))
	if got := ids(b.query(t, b.root, from("c"))); got != "kept touched" {
		t.Errorf("got %q, want kept touched", got)
	}
}

func TestTTLPoliciesAreChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policies []firestore.TTLPolicy
		want     string
	}{
		{[]firestore.TTLPolicy{{Collection: "c", Field: "a"}, {Collection: "c", Field: "b"}}, "two TTL policies"},
		{[]firestore.TTLPolicy{{Field: "a"}}, "an id is empty"},
		{[]firestore.TTLPolicy{{Collection: "c"}}, "property path"},
		{[]firestore.TTLPolicy{{Collection: "c", Field: "__name__"}}, "__name__"},
		{[]firestore.TTLPolicy{{Collection: "c", Field: "a", Limit: -1}}, "-1ns"},
	} {
		srv, err := firestore.New(firestore.WithTTL(c.policies...))
		if err == nil {
			srv.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: error %v, want %q", c.policies, err, c.want)
		}
	}
}
