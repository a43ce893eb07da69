// Package credential keeps the OAuth tokens by which Parley acts for people and bots on their platforms. The gateway
// and the functions that speak to a platform share it; nothing else in Parley holds such a token.
//
// A [Keeper] stores each credential in Firestore, in a document named after whom it belongs to:
//
//	credentials/{platform:id}
//	  sealed       the access and the refresh token, encrypted
//	  version      which token it is: grows with every new one, and never returns to an earlier value
//	  scopes       what the person granted
//	  login        the person's name at the platform when the token was last validated, for operators to read
//	  issuedAt     when the platform gave out the token
//	  expiresAt    when it ends; none if the platform doesn't say
//	  validatedAt  when the platform last said that it is good; none once it is of no use any more
//	  retryAt      before this time nobody asks the platform again, because it has just failed to answer
//	  leaseHolder  who is refreshing or validating at the moment
//	  leaseUntil   until when that one may take
//	  revokedAt    since when the credential is of no use any more, and
//	  revokedWhy   for what reason: the person has to log in again
//
// The tokens are sealed by envelope encryption ([OpenKey]): each has a data key of its own, which only Cloud KMS can
// open (https://cloud.google.com/kms/docs/envelope-encryption). The document's id is the associated data, so that
// what was sealed for one person can't be opened as another's. Whoever reads the database, a backup or an export of
// it, holds nothing that a platform accepts.
//
// No error, log line or formatted value of this package holds a token: a [Secret] shows itself only where the code
// calls [Secret.Reveal].
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

// Secret is a text that must not be seen. The zero value is the empty one. It can't be compared with ==; see
// [Secret.Equal].
//
// The text is behind a pointer because package fmt prints the fields of a struct that it can't call methods of: so
// even a Secret in an unexported field of somebody's struct prints as an address.
type Secret struct{ text *string }

// NewSecret hides a text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// redacted stands wherever a secret would be shown.
const redacted = "[redacted]"

// Reveal is the text. What it returns belongs into a request to the platform and nowhere else.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no text.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares in a time that tells nothing of either text but its length.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(o.Reveal())) == 1
}

// Format prints [redacted] for every verb.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue is what package slog writes.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps a secret out of JSON and of whatever else encodes by text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText lets a configuration read a secret.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = NewSecret(string(text))
	return nil
}

// Token is what a platform gave for acting as somebody.
type Token struct {
	User    identity.UserID // whom it belongs to
	Access  Secret          // what requests carry
	Refresh Secret          // what the next token is asked with; zero if there will be none
	Scopes  []string        // what was granted; not to be changed
	Login   string          // the person's name at the platform; for people to read, it may change
	Expires time.Time       // zero if the platform didn't say
	// Validated is when the platform last said that the token is good. A token that is put with the zero value is
	// validated before its first use.
	Validated time.Time

	version int64 // of the document that it was read from
	issued  time.Time
}

// Format prints whose token it is, and no secret, for every verb.
func (t Token) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "token of %s", t.User) }

// LogValue is what package slog writes: no secret.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", t.User.String()), slog.Int64("version", t.version),
		slog.Time("expires", t.Expires), slog.Any("scopes", t.Scopes))
}

// Require returns a [MissingScopes] if any of the scopes was not granted. To be called before the first request that
// needs them: a platform's own refusal often doesn't say what is missing.
func (t Token) Require(scopes ...string) error {
	if missing := Missing(t.Scopes, scopes); len(missing) > 0 {
		return &MissingScopes{User: t.User, Missing: missing}
	}
	return nil
}

// Missing lists those of the wanted scopes that are not among the granted, in the wanted order.
func Missing(granted, wanted []string) []string {
	var missing []string
	for _, w := range wanted {
		if !slices.Contains(granted, w) && !slices.Contains(missing, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

// MissingScopes says that somebody logged in, but didn't grant what is needed now. Only they can change that.
type MissingScopes struct {
	User    identity.UserID
	Missing []string // at least one
}

func (e *MissingScopes) Error() string {
	return fmt.Sprintf("%s has not granted %s: log in again as %s (%s) and allow it", e.User, strings.Join(e.Missing, " "), e.User, LoginPath(e.User.Platform()))
}

// LoginNeeded says that there is no credential that could be used or refreshed, whatever is retried. Only a person can
// change that.
type LoginNeeded struct {
	User identity.UserID
	Why  string // "nobody has logged in as this user", for example
}

func (e *LoginNeeded) Error() string {
	return fmt.Sprintf("no credential of %s: %s: log in as %s (%s)", e.User, e.Why, e.User, LoginPath(e.User.Platform()))
}

// LoginPath is where the gateway lets people of a platform log in.
func LoginPath(p identity.Platform) string { return "/oauth/" + string(p) + "/login" }

var (
	// ErrBusy is wrapped where somebody else was refreshing a credential for longer than one waits. To be retried.
	ErrBusy = errors.New("somebody else is still refreshing the credential")
	// ErrUnavailable is wrapped where the platform could not be asked, or answered with a fault of its own. To be
	// retried.
	ErrUnavailable = errors.New("the platform's authorization server is not available")
	// ErrRefused is wrapped where the platform refuses what is no token's fault: the client's id or secret are
	// wrong, for example. An operator has to look; the credential stays as it is.
	ErrRefused = errors.New("the platform refuses this client")
	// ErrInvalidToken is wrapped by an [Issuer] where the platform says that a token, or a code, is not valid (any
	// more). The keeper makes another token or a [LoginNeeded] of it.
	ErrInvalidToken = errors.New("the platform says that the token is not valid")
	// ErrSealed is wrapped where a credential can't be decrypted: another key, or another user's ciphertext.
	ErrSealed = errors.New("the credential can't be decrypted with this key for this user")
)
