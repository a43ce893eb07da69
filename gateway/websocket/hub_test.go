package websocket

import (
	"fmt"
	"testing"
	"time"

	"parley.internal/shared/identity"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestAllowancesOfFormerUsersAreBounded(t *testing.T) {
	cfg := defaults(t)
	cfg.MaxConnections = 10
	h := newHub(cfg)
	for n := range 1000 {
		user := fmt.Sprint(n)
		limits, refused := h.reserve(user)
		if refused != "" {
			t.Fatal(refused)
		}
		limits.rate.Allow() // not idle
		h.release(user)
	}
	if len(h.perUser) > 4*cfg.MaxConnections {
		t.Errorf("%d allowances for at most %d connections", len(h.perUser), cfg.MaxConnections)
	}
}

// BenchmarkBroadcast queues a frame for 1,000 connections, the maximum of an instance on Cloud Run. It measures the hub
// lookup, a single encoding, and the queueing. Taking the frames out of the queues stands for the writers.
func BenchmarkBroadcast(b *testing.B) {
	const connections = 1000
	cfg := defaults(b)
	h := newHub(cfg)
	s := &Server{config: cfg, hub: h}
	var conns []*conn
	for i := range connections {
		user, err := identity.New(identity.Twitch, fmt.Sprint(i))
		if err != nil {
			b.Fatal(err)
		}
		c := &conn{server: s, id: uint64(i), userID: user.String(), queue: newQueue(cfg.QueueFrames, cfg.QueueBytes), rooms: map[string]struct{}{}}
		if !h.add(c) || !h.join(c, "all") {
			b.Fatal("not added")
		}
		conns = append(conns, c)
	}
	in := incoming("d1", "", "all", "an answer of a usual length, some eighty characters long, as most of them are.")
	spare := make([][]frame, connections)
	var queuedFor []uint64
	b.ReportAllocs()
	for b.Loop() {
		f, err := prepare(answerFrame(in.Event, "d1", testTime), "answer")
		if err != nil {
			b.Fatal(err)
		}
		f.receipt = &receipt{}
		f.receipt.expect(connections)
		queuedFor = broadcast(f, h.receivers(nil, "", "all"), queuedFor[:0])
		if len(queuedFor) != connections {
			b.Fatalf("%d took it", len(queuedFor))
		}
		for i, c := range conns {
			spare[i] = c.queue.take(spare[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/connections, "ns/connection")
}
