package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Token is the access token of a WebSocket client, in the collection tokens.
type Token struct {
	UserID     string    `firestore:"user_id"`
	ExpiresAt  time.Time `firestore:"expires_at,omitempty"` // zero for never
	CreatedAt  time.Time `firestore:"created_at,omitempty"`
	LastUsedAt time.Time `firestore:"last_used_at,omitempty"`
	RevokedAt  time.Time `firestore:"revoked_at,omitempty"` // zero for a valid token
}

// TokenHash returns the document id of a raw token: the SHA-256, in hex. The raw token is never stored.
func TokenHash(raw string) string {
	sum := sha256.Sum256([]byte(raw))
	return hex.EncodeToString(sum[:])
}

// Token reads a token by its hash, and reports whether the token exists.
func (s *Store) Token(ctx context.Context, hash string) (Token, bool, error) {
	snap, err := s.token(hash).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return Token{}, false, nil
	}
	if err != nil {
		return Token{}, false, fmt.Errorf("read a token: %w", err)
	}
	var t Token
	if err := snap.DataTo(&t); err != nil {
		return Token{}, false, fmt.Errorf("read a token: %w", err)
	}
	return t, true, nil
}

// PutToken writes a token, and replaces an earlier token with the same hash.
func (s *Store) PutToken(ctx context.Context, hash string, t Token) error {
	if _, err := s.token(hash).Set(ctx, t); err != nil {
		return fmt.Errorf("write a token: %w", err)
	}
	return nil
}

// TouchToken stores the time of the last use of a token. A missing token is an error.
func (s *Store) TouchToken(ctx context.Context, hash string, at time.Time) error {
	if _, err := s.token(hash).Update(ctx, []firestore.Update{{Path: "last_used_at", Value: at}}); err != nil {
		return fmt.Errorf("store the last use of a token: %w", err)
	}
	return nil
}

func (s *Store) token(hash string) *firestore.DocumentRef {
	return s.client.Doc("gateways/api/tokens/" + hash)
}
