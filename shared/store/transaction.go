package store

import (
	"context"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/retry"
)

// maxTransactionRounds is the number of rounds of [RunTransaction]. Firestore's library makes 5 attempts in a round,
// unless [firestore.MaxAttempts] says otherwise.
const maxTransactionRounds = 4

// RunTransaction is [firestore.Client.RunTransaction] with more patience for contention. Firestore answers Aborted when
// other transactions hold locks on the same documents for too long. The library tries 5 times within a few seconds, and
// then returns Aborted. An aborted transaction has changed nothing, so RunTransaction starts over after a pause of about
// 200, 400 and 800 ms, until ctx is done. It returns Aborted only after 4 such rounds, or when ctx ends during a pause.
// Any other error is returned at once.
//
// f may be called several times, so it must set its results anew in each call.
func RunTransaction(ctx context.Context, client *firestore.Client, f func(context.Context, *firestore.Transaction) error, opts ...firestore.TransactionOption) error {
	backoff := retry.NewBackoff(200*time.Millisecond, 2*time.Second)
	for round := 1; ; round++ {
		err := client.RunTransaction(ctx, f, opts...)
		if status.Code(err) != codes.Aborted || round == maxTransactionRounds || backoff.Wait(ctx) != nil {
			return err
		}
	}
}
