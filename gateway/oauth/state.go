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
	"regexp"
	"time"

	"cloud.google.com/go/firestore"
	"golang.org/x/oauth2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/store"
)

// attempt is a started login, the document logins/{SHA-256 of the state}. Firestore stores it because Twitch may send
// the browser back to a different instance. A reader of the document cannot finish the login: the document holds
// neither the state nor the verifier in the browser's cookie.
type attempt struct {
	Browser  string    `firestore:"browser"`  // PKCE challenge of the verifier in the browser's cookie
	As       []Role    `firestore:"as"`       // sorted
	Operator bool      `firestore:"operator"` // started with the operator's secret
	ExpireAt time.Time `firestore:"expireAt"` // the collection's TTL field
}

var (
	errUnknownState = errors.New("the state is unknown, used or expired")
	errOtherBrowser = errors.New("the state belongs to a different browser")
)

// stateForm matches the states made by create: 32 bytes in base64.
var stateForm = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// attemptStore stores started logins in the collection logins. Nothing else reads or writes the collection.
type attemptStore struct {
	client *firestore.Client
	now    func() time.Time
}

func (a attemptStore) doc(state string) *firestore.DocumentRef {
	sum := sha256.Sum256([]byte(state))
	return a.client.Collection("logins").Doc(hex.EncodeToString(sum[:]))
}

// create stores a new login. It returns the state for Twitch's redirect and the verifier for the browser's cookie.
func (a attemptStore) create(ctx context.Context, as []Role, operator bool, ttl time.Duration) (state, verifier string, err error) {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails
	state, verifier = base64.RawURLEncoding.EncodeToString(raw), oauth2.GenerateVerifier()
	_, err = a.doc(state).Create(ctx, attempt{
		Browser: oauth2.S256ChallengeFromVerifier(verifier), As: as, Operator: operator, ExpireAt: a.now().Add(ttl),
	})
	if err != nil {
		return "", "", fmt.Errorf("store the login's state: %w", err)
	}
	return state, verifier, nil
}

// consume returns a login and deletes it. Of several concurrent calls with the same state, one succeeds. The error is
// errUnknownState if the state is unknown, used or expired. It is errOtherBrowser if the verifier is a different
// browser's; the state then stays valid for its own browser.
func (a attemptStore) consume(ctx context.Context, state, verifier string) (attempt, error) {
	doc := a.doc(state)
	snap, err := doc.Get(ctx)
	if status.Code(err) == codes.NotFound {
		return attempt{}, errUnknownState
	}
	if err != nil {
		return attempt{}, fmt.Errorf("read the login's state: %w", err)
	}
	var found attempt
	if err := snap.DataTo(&found); err != nil {
		return attempt{}, fmt.Errorf("read the login's state: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(oauth2.S256ChallengeFromVerifier(verifier)), []byte(found.Browser)) != 1 {
		return attempt{}, errOtherBrowser
	}
	switch _, err := doc.Delete(ctx, firestore.LastUpdateTime(snap.UpdateTime)); {
	case store.IsConflict(err): // a concurrent request has consumed the state
		return attempt{}, errUnknownState
	case err != nil:
		return attempt{}, fmt.Errorf("delete the login's state: %w", err)
	}
	if !a.now().Before(found.ExpireAt) { // Firestore takes up to 24 h to delete an expired document
		return attempt{}, errUnknownState
	}
	return found, nil
}
