package oauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// attempt is a login that was begun: logins/{SHA-256 of its state}. It is in Firestore because the person may return
// to another instance. Nobody who reads it can go on with it: it holds neither the state nor what the browser has.
type attempt struct {
	Browser  string    `firestore:"browser"`  // the PKCE challenge, made of what the browser's cookie holds
	As       []Role    `firestore:"as"`       // sorted
	Operator bool      `firestore:"operator"` // begun with the operator's secret
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

var (
	errUnknownState = errors.New("the state is unknown, used or expired")
	errOtherBrowser = errors.New("the state was given to another browser")
)

// attempts keeps the logins that were begun.
type attempts struct {
	client *firestore.Client
	now    func() time.Time
}

func (a attempts) doc(state string) *firestore.DocumentRef {
	sum := sha256.Sum256([]byte(state))
	return a.client.Collection("logins").Doc(hex.EncodeToString(sum[:]))
}

// begin keeps a login and returns its state, which goes to the browser by way of Twitch, and the verifier, which it
// gets as a cookie.
func (a attempts) begin(ctx context.Context, as []Role, operator bool, ttl time.Duration) (state, verifier string, err error) {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails
	state, verifier = base64.RawURLEncoding.EncodeToString(raw), oauth2.GenerateVerifier()
	_, err = a.doc(state).Create(ctx, attempt{
		Browser: oauth2.S256ChallengeFromVerifier(verifier), As: as, Operator: operator, ExpireAt: a.now().Add(ttl),
	})
	if err != nil {
		return "", "", fmt.Errorf("keep the login's state: %w", err)
	}
	return state, verifier, nil
}

// take ends a login: of all who come with its state only one gets it, once, and only in the browser that began it. A
// state that another browser presents stays in force for the one it was given to.
func (a attempts) take(ctx context.Context, state, verifier string) (attempt, error) {
	doc := a.doc(state)
	snap, err := doc.Get(ctx)
	if status.Code(err) == codes.NotFound {
		return attempt{}, errUnknownState
	}
	if err != nil {
		return attempt{}, fmt.Errorf("look up the login's state: %w", err)
	}
	var found attempt
	if err := snap.DataTo(&found); err != nil {
		return attempt{}, fmt.Errorf("look up the login's state: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(oauth2.S256ChallengeFromVerifier(verifier)), []byte(found.Browser)) != 1 {
		return attempt{}, errOtherBrowser
	}
	switch _, err := doc.Delete(ctx, firestore.LastUpdateTime(snap.UpdateTime)); status.Code(err) {
	case codes.OK:
	case codes.FailedPrecondition, codes.NotFound, codes.Aborted: // another request has it
		return attempt{}, errUnknownState
	default:
		return attempt{}, fmt.Errorf("use up the login's state: %w", err)
	}
	if !a.now().Before(found.ExpireAt) { // Firestore deletes expired documents within 24 h only
		return attempt{}, errUnknownState
	}
	return found, nil
}
