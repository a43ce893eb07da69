package delivery

import (
	"context"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
)

const (
	// maxTogether is the number of writes in one call: the size of a BatchWrite of the client's BulkWriter.
	maxTogether = 20
	// maxCalls is the number of concurrent calls, not counting calls that the client repeats because Firestore was
	// busy. Further writes wait for the first call that ends, and then go together.
	maxCalls = 4
	// callTime is the limit of one call.
	callTime = 10 * time.Second
)

// batcher groups the concurrent writes of one ledger into few calls. A write without company is sent at once. Firestore
// accepts or refuses each write of a call by itself
// (https://firebase.google.com/docs/firestore/reference/rpc/google.firestore.v1#batchwriterequest).
type batcher struct {
	client *firestore.Client

	mu      sync.Mutex
	waiting []*write
	calls   int
}

// write is an update of a document, on the condition that the document still has a version.
type write struct {
	doc     *firestore.DocumentRef
	updates []firestore.Update
	version time.Time
	left    <-chan struct{} // closed when the caller has left
	done    chan error      // receives the result; buffered
}

// write sends an update and returns its result. If ctx ends first, write returns the context's error, and the update
// may still happen.
func (b *batcher) write(ctx context.Context, doc *firestore.DocumentRef, updates []firestore.Update, version time.Time) error {
	w := &write{doc, updates, version, ctx.Done(), make(chan error, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, w)
	if b.calls < maxCalls {
		b.calls++
		go b.call(context.WithoutCancel(ctx)) // ends when no write waits
	}
	b.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// call sends calls until no write waits.
func (b *batcher) call(ctx context.Context) {
	for {
		writes := b.take()
		if writes == nil {
			return
		}
		b.commit(ctx, writes)
	}
}

// take returns the writes of the next call, each for a different document. Without writes the call ends. Writes of
// callers that have left are dropped: a caller still interested repeats the write, and during an outage of Firestore
// the dead writes would delay the live ones more and more.
func (b *batcher) take() (writes []*write) {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := map[string]bool{}
	var rest []*write
	for _, w := range b.waiting {
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
	b.waiting = rest
	if writes == nil {
		b.calls--
	}
	return writes
}

// commit sends one call and returns when the call has ended. The client repeats a write that Firestore refused for the
// moment, because of contention or load, a second later or more. Only the caller of that write waits for the
// repetition.
func (b *batcher) commit(ctx context.Context, writes []*write) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	if len(writes) == 1 {
		defer cancel()
		w := writes[0]
		_, err := w.doc.Update(ctx, w.updates, firestore.LastUpdateTime(w.version))
		w.done <- err
		return
	}
	bulk := b.client.BulkWriter(ctx)
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
