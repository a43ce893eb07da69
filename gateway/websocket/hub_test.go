package websocket

import (
	"fmt"
	"testing"
	"time"

	"parley.internal/shared/identity"
)

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// BenchmarkBroadcast puts one frame into the queues of 1,000 connections, as many as one instance holds on Cloud Run:
// finding them in the hub, encoding once, queueing. Taking the frames out again stands for their writers.
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
	var had []uint64
	b.ReportAllocs()
	for b.Loop() {
		f, err := prepare(answerFrame(in.Event, "d1", testTime), "answer")
		if err != nil {
			b.Fatal(err)
		}
		f.receipt = &receipt{}
		f.receipt.expect(connections)
		had = broadcast(f, h.receivers(nil, "", "all"), had[:0])
		if len(had) != connections {
			b.Fatalf("%d took it", len(had))
		}
		for i, c := range conns {
			spare[i] = c.queue.take(spare[i])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/connections, "ns/connection")
}
