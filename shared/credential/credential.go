// Package credential stores the OAuth tokens of people and bots. The gateway and the functions that send to a platform
// share the package; no other part of Parley holds such a token.
//
// Start with [Keeper]: [Keeper.Token] returns a valid token, and [Keeper.Put] stores a login. The package must not know
// events, deliveries or the bus.
//
// A [Keeper] stores each credential in a Firestore document. The document's id is the user's id:
//
//	credentials/{platform:id}
//	  sealed       the access token and the refresh token, encrypted
//	  version      number of the token; grows with every new token and never repeats
//	  scopes       the granted scopes
//	  login        the user's name at the last validation, for operators
//	  issuedAt     time of issue
//	  expiresAt    end of the token; absent if unknown
//	  validatedAt  last time when the platform confirmed the token; absent for a revoked credential
//	  retryAt      earliest time of the next request to the platform after a failure
//	  leaseHolder  id of the keeper that is refreshing or validating
//	  leaseUntil   end of that keeper's lease
//	  revokedAt    time of the revocation, and
//	  revokedWhy   the reason for the revocation: a new login is needed
//
// The tokens are sealed by envelope encryption ([OpenKey]): each ciphertext has a data key of its own, and only Cloud KMS
// can decrypt the data key (https://cloud.google.com/kms/docs/envelope-encryption). The document's id is the associated
// data, so a ciphertext of one user can't be decrypted as another user's. A reader of the database, or of a backup or an
// export, holds nothing that a platform accepts.
//
// No error, log line or formatted value of this package holds a token. Only [Secret.Reveal] shows a [Secret].
package credential

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"parley.internal/shared/identity"
)

// Secret is a text that is never printed. The zero value is the empty text. Compare with [Secret.Equal], not with ==.
//
// The text is behind a pointer because package fmt prints unexported fields of a struct without calling methods. So even
// a Secret in an unexported field prints as an address.
type Secret struct{ text *string }

// NewSecret makes a secret from a text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// redacted replaces a secret in every output.
const redacted = "[redacted]"

// Reveal returns the text, for a request to the platform and for nothing else.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares two secrets. The time taken depends only on the lengths.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// Format prints [redacted] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue returns [redacted] for package slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns [redacted], to keep a secret out of JSON and of all text encodings.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText reads a secret from a configuration.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

// Token is a platform's permission to act as a user.
type Token struct {
	User    identity.UserID // the owner
	Access  Secret          // sent with requests
	Refresh Secret          // obtains the next token; zero if the token can't be refreshed
	Scopes  []string        // granted scopes; read-only
	Login   string          // the user's name at the platform, for people to read; may change
	Expires time.Time       // zero if unknown
	// Validated is the last time when the platform confirmed the token. A token that is put with the zero value is
	// validated before its first use.
	Validated time.Time

	version int64 // of the document
	issued  time.Time
}

// Format prints the owner, and no secret, for every verb.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "token of %s", t.User) }

// LogValue returns owner, version, end and scopes for package slog, and no secret.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", t.User.String()), slog.Int64("version", t.version),
		slog.Time("expires", t.Expires), slog.Any("scopes", t.Scopes))
}

// Require returns a [MissingScopes] if one of the scopes is not granted. Call it before the first request that needs
// the scopes: a platform's refusal often does not name the missing scope.
func (t Token) Require(scopes ...string) error {
	if missing := Missing(t.Scopes, scopes); len(missing) > 0 {
		return &MissingScopes{User: t.User, Missing: missing}
	}
	return nil
}

// Missing returns the wanted scopes without the granted ones, in the wanted order, each once.
func Missing(granted, wanted []string) []string {
	var missing []string
	for _, w := range wanted {
		if !slices.Contains(granted, w) && !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

// MissingScopes is the error for a credential without the necessary scopes. Only a new login helps.
type MissingScopes struct {
	User    identity.UserID
	Missing []string // at least one
}

func (e *MissingScopes) Error() string {
	return fmt.Sprintf("%s has not granted %s: log in again as %s (%s) and allow it", e.User, strings.Join(e.Missing, " "), e.User, LoginPath(e.User.Platform()))
}

// LoginNeeded is the error for a missing or revoked credential. Retries do not help; only a login does.
type LoginNeeded struct {
	User identity.UserID
	Why  string // "nobody has logged in as this user", for example
}

func (e *LoginNeeded) Error() string {
	return fmt.Sprintf("no credential of %s: %s: log in as %s (%s)", e.User, e.Why, e.User, LoginPath(e.User.Platform()))
}

// LoginPath returns the path of the gateway's login page for a platform.
func LoginPath(p identity.Platform) string { return "/oauth/" + string(p) + "/login" }

var (
	// ErrBusy is wrapped if another keeper is refreshing the credential for longer than the wait. A retry may succeed.
	ErrBusy = errors.New("another instance is still refreshing the credential")
	// ErrUnavailable is wrapped if the platform's authorization server is unreachable or answers with a server error. A
	// retry may succeed.
	ErrUnavailable = errors.New("the platform's authorization server is not available")
	// ErrRefused is wrapped if the platform refuses a request for a reason other than the token, such as a wrong client id
	// or client secret. An operator has to act; the credential does not change.
	ErrRefused = errors.New("the platform refuses this client")
	// ErrInvalidToken is wrapped by an [Issuer] for an invalid, expired or withdrawn token or code. The keeper refreshes
	// the credential or returns a [LoginNeeded].
	ErrInvalidToken = errors.New("the platform calls the token invalid")
	// ErrSealed is wrapped if decryption fails, because of another key or another user's ciphertext.
	ErrSealed = errors.New("the credential can't be decrypted with this key for this user")
)
