package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// document is credentials/{platform:id}. The package comment describes the fields.
type document struct {
	Sealed      []byte    `firestore:"sealed"`
	Version     int64     `firestore:"version"`
	Scopes      []string  `firestore:"scopes"`
	Login       string    `firestore:"login"`
	IssuedAt    time.Time `firestore:"issuedAt"`
	ExpiresAt   time.Time `firestore:"expiresAt,omitempty"`
	ValidatedAt time.Time `firestore:"validatedAt,omitempty"`
	RetryAt     time.Time `firestore:"retryAt,omitempty"`
	LeaseHolder string    `firestore:"leaseHolder,omitempty"`
	LeaseUntil  time.Time `firestore:"leaseUntil,omitempty"`
	RevokedAt   time.Time `firestore:"revokedAt,omitempty"`
	RevokedWhy  string    `firestore:"revokedWhy,omitempty"`
}

// updates returns d's fields by name. Writing by name keeps fields that are not Parley's.
func (d document) updates() []firestore.Update {
	return []firestore.Update{
		{Path: "sealed", Value: d.Sealed}, {Path: "version", Value: d.Version}, {Path: "scopes", Value: d.Scopes},
		{Path: "login", Value: d.Login}, {Path: "issuedAt", Value: d.IssuedAt}, {Path: "expiresAt", Value: optional(d.ExpiresAt)},
		{Path: "validatedAt", Value: optional(d.ValidatedAt)}, {Path: "retryAt", Value: optional(d.RetryAt)},
		{Path: "leaseHolder", Value: optional(d.LeaseHolder)}, {Path: "leaseUntil", Value: optional(d.LeaseUntil)},
		{Path: "revokedAt", Value: optional(d.RevokedAt)}, {Path: "revokedWhy", Value: optional(d.RevokedWhy)},
	}
}

// optional returns firestore.Delete for a zero value.
func optional[T comparable](v T) any {
	var none T
	if v == none {
		return firestore.Delete
	}
	return v
}

// nextVersion returns the version after was. It is at least the time in milliseconds: a document that was deleted and
// made again must not repeat versions in the memory of other processes.
func nextVersion(was int64, now time.Time) int64 { return max(was+1, now.UnixMilli()) }

// revision is a document as read from Firestore.
type revision struct {
	document
	seen time.Time // update time of the document; zero if the document does not exist
}

func (k *Keeper) ref(id identity.UserID) *firestore.DocumentRef {
	return k.firestore.Collection("credentials").Doc(id.String())
}

func (k *Keeper) read(ctx context.Context, id identity.UserID) (revision, error) {
	snap, err := k.ref(id).Get(ctx)
	if status.Code(err) == codes.NotFound {
		return revision{}, nil
	}
	if err != nil {
		return revision{}, fmt.Errorf("read the credential: %w", err)
	}
	var d document
	if err := snap.DataTo(&d); err != nil {
		return revision{}, fmt.Errorf("read the credential: %w", err)
	}
	return revision{d, snap.UpdateTime}, nil
}

// errChanged means that the document was changed after the read.
var errChanged = errors.New("the credential changed meanwhile")

// write stores d if the document is still as read; otherwise it returns errChanged. After a lost answer, a successful
// write may also return errChanged.
func (k *Keeper) write(ctx context.Context, id identity.UserID, was revision, d document) error {
	var err error
	if was.seen.IsZero() {
		_, err = k.ref(id).Create(ctx, d)
	} else {
		_, err = k.ref(id).Update(ctx, d.updates(), firestore.LastUpdateTime(was.seen))
	}
	switch {
	case err == nil:
		return nil
	case store.IsConflict(err):
		return errChanged
	}
	return fmt.Errorf("write the credential: %w", err)
}

// change writes alter's result. After a conflict it reads the document again and repeats. The arguments of alter are the
// document and whether the document exists. If alter returns false, change writes nothing and returns alter's document.
func (k *Keeper) change(ctx context.Context, id identity.UserID, alter func(document, bool) (document, bool)) (document, error) {
	for {
		was, err := k.read(ctx, id)
		if err != nil {
			return document{}, err
		}
		d, ok := alter(was.document, !was.seen.IsZero())
		if !ok {
			return d, nil
		}
		if err := k.write(ctx, id, was, d); err == nil || !errors.Is(err, errChanged) {
			return d, err
		}
		if err := k.pause(ctx, minPoll); err != nil {
			return document{}, err
		}
	}
}

// plaintext is the encrypted part of a document.
type plaintext struct {
	Access  string `json:"access"`
	Refresh string `json:"refresh,omitempty"`
}

// seal encrypts the token's secrets.
func (k *Keeper) seal(ctx context.Context, id identity.UserID, t Token) ([]byte, error) {
	plain, err := json.Marshal(plaintext{t.Access.Reveal(), t.Refresh.Reveal()})
	if err != nil {
		return nil, errors.New("seal the credential: encoding failed")
	}
	sealed, err := k.key.EncryptWithContext(ctx, plain, []byte(id.String()))
	if err != nil {
		return nil, fmt.Errorf("seal the credential: %w", err)
	}
	return sealed, nil
}

// open decrypts a document. It does not use the key for a version in the cache.
func (k *Keeper) open(ctx context.Context, id identity.UserID, d document) (Token, error) {
	t := Token{User: id, Scopes: d.Scopes, Login: d.Login, Expires: d.ExpiresAt, Validated: d.ValidatedAt, issued: d.IssuedAt, version: d.Version}
	if got, ok := k.cache.get(id); ok && got.token.version == d.Version && !got.unsaved {
		t.Access, t.Refresh = got.token.Access, got.token.Refresh
		return t, nil
	}
	plain, err := k.key.DecryptWithContext(ctx, d.Sealed, []byte(id.String()))
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	var p plaintext
	if err := json.Unmarshal(plain, &p); err != nil || p.Access == "" {
		return Token{}, fmt.Errorf("%w: the content is not a credential", ErrSealed) // the cause may quote the content
	}
	t.Access, t.Refresh = NewSecret(p.Access), NewSecret(p.Refresh)
	return t, nil
}
