package delivery

import (
	"context"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
)

const (
	// maxTogether is how many writes go in one call: what the client's BulkWriter puts into one BatchWrite.
	maxTogether = 20
	// maxCalls is how many such calls are under way at a time, beside those that Firestore refused for a while and that
	// are made again. Writes that come while all are wait for the first that ends, and then go together.
	maxCalls = 4
	// callTime bounds one call, whoever waits for what is in it.
	callTime = 10 * time.Second
)

// batcher makes the writes of one ledger that are wanted at the same time in as few calls as the load allows. A write
// that comes alone goes at once. Each is made or refused by itself, whatever becomes of those that went with it
// (https://firebase.google.com/docs/firestore/reference/rpc/google.firestore.v1#batchwriterequest).
type batcher struct {
	client *firestore.Client

	mu      sync.Mutex
	waiting []*write
	calls   int
}

// write is a change of a document on the condition that it still has a version.
type write struct {
	doc     *firestore.DocumentRef
	updates []firestore.Update
	version time.Time
	left    <-chan struct{} // closed when nobody waits for it any more
	done    chan error      // gets what came of it; has room for that
}

// write makes a write, and returns when it is made or refused, or with the context's error: then it may yet be made.
func (g *batcher) write(ctx context.Context, doc *firestore.DocumentRef, updates []firestore.Update, version time.Time) error {
	w := &write{doc, updates, version, ctx.Done(), make(chan error, 1)}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	if g.calls < maxCalls {
		g.calls++
		go g.call(context.WithoutCancel(ctx)) // ends when nothing waits any more
	}
	g.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call makes calls while there are writes that wait.
func (g *batcher) call(ctx context.Context) {
	for {
		writes := g.take()
		if writes == nil {
			return
		}
		g.commit(ctx, writes)
	}
}

// take gives the writes of the next call, each of another document. If there are none, the call is over. Those that
// nobody waits for any more are dropped: whoever still wants one asks again, and while Firestore is away the live ones
// would wait behind more and more of them.
func (g *batcher) take() (writes []*write) {
	g.mu.Lock()
	defer g.mu.Unlock()
	taken := map[string]bool{}
	var rest []*write
	for _, w := range g.waiting {
		select {
		case <-w.left:
			continue
		default:
		}
		if len(writes) < maxTogether && !taken[w.doc.ID] {
			taken[w.doc.ID] = true
			writes = append(writes, w)
		} else {
			rest = append(rest, w)
		}
	}
	g.waiting = rest
	if writes == nil {
		g.calls--
	}
	return writes
}

// commit makes a call, and returns when it has ended. What Firestore refuses for a while, since others write the same
// document just now or it has too much to do, the client tries again by itself, a second later or more; nobody else waits
// for that.
func (g *batcher) commit(ctx context.Context, writes []*write) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	if len(writes) == 1 {
		defer cancel()
		w := writes[0]
		_, err := w.doc.Update(ctx, w.updates, firestore.LastUpdateTime(w.version))
		w.done <- err
		return
	}
	bulk := g.client.BulkWriter(ctx)
	var results sync.WaitGroup
	for _, w := range writes {
		job, err := bulk.Update(w.doc, w.updates, firestore.LastUpdateTime(w.version))
		if err != nil {
			w.done <- err
			continue
		}
		results.Go(func() { // ends with the result, or with ctx
			_, err := job.Results()
			w.done <- err
		})
	}
	bulk.End()
	go func() { // ends with the results
		results.Wait()
		cancel()
	}()
}
