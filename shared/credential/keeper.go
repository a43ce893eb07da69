package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"cloud.google.com/go/firestore"
	"github.com/google/uuid"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley.internal/shared/identity"
)

const (
	// early is how long before its end a token is replaced, so that no request starts with a token that ends on its
	// way. Twitch's last about four hours.
	early = 5 * time.Minute
	// validity is how long a platform's word that a token is good counts. Twitch demands an hour at the most, for an
	// app as a whole (https://dev.twitch.tv/docs/authentication/validate-tokens/); what is left is for those tokens that
	// only Run looks at.
	validity = 50 * time.Minute
	// fresh is how long a token counts as just issued: if it is refused within this time, it is looked at before
	// another is asked for.
	fresh = time.Minute
	// cacheTime is how long a token is used without looking whether somebody logged in anew or the token was revoked.
	cacheTime = time.Minute
	// leaseTime is how long one may take to validate, refresh and write. Two requests take at most 10 s; the rest is
	// for the writing and for instances' clocks that differ.
	leaseTime = 20 * time.Second
	// retryTime is how long nobody asks a platform that has just failed.
	retryTime = 5 * time.Second
	// waitTime is how long one waits for whoever is refreshing: longer than leaseTime, so that one who died while
	// refreshing is replaced within one wait.
	waitTime = 25 * time.Second
	// obtainTime bounds everything that is done for one call, however long its callers would wait.
	obtainTime = 40 * time.Second
	// saveTime bounds the writing of a token that has just been issued. If it gets lost, the person may have to log
	// in again: so it is tried for long.
	saveTime = 10 * time.Second

	minPoll, maxPoll = 50 * time.Millisecond, time.Second
	// checkTime is how often Run looks for credentials that have to be validated, or up to half as long again: so that
	// instances which started together don't all do so at once.
	checkTime = 5 * time.Minute
)

// Dependencies are what a keeper works with; all are needed.
type Dependencies struct {
	Firestore *firestore.Client // stays the caller's to close
	Key       Key
	Issuers   map[identity.Platform]Issuer
	Log       *slog.Logger
	Now       func() time.Time
}

// Keeper keeps credentials. Any number of keepers, in any number of processes, may share a database: of those who
// find that a token has to be replaced, one asks the platform, and all get what it got. It is safe for concurrent use.
//
// Who asks is decided by a lease on the credential's document, which is taken, like all that is written, on condition
// that the document is as it was read. A lease only spares the platform: what makes it safe is that a new token is
// stored on condition that the version it replaces is still there.
//
// One loss can't be avoided: if the platform issues a token and its answer never arrives, or the process dies before it
// is stored, then a platform that took the old refresh token out of force leaves only a new login.
type Keeper struct {
	firestore *firestore.Client
	key       Key
	issuers   map[identity.Platform]Issuer
	log       *slog.Logger
	now       func() time.Time
	holder    string                                           // this keeper, in leases
	pause     func(ctx context.Context, d time.Duration) error // waits; tests put in their own

	flights singleflight.Group
	flying  sync.WaitGroup

	mu    sync.Mutex
	known map[identity.UserID]known // one for each credential that was used; dropped once it is of no use any more
}

// known is a token as this process read it.
type known struct {
	token Token
	at    time.Time // when the document was read
	// unsaved is set where the platform issued this token, but Firestore could not be written: it is stored at the
	// next opportunity. replaces is the version that it is the successor of.
	unsaved  bool
	replaces int64
}

// NewKeeper makes a keeper. It does nothing by itself; see [Keeper.Run].
func NewKeeper(d Dependencies) *Keeper {
	return &Keeper{
		firestore: d.Firestore, key: d.Key, issuers: d.Issuers, log: d.Log, now: d.Now,
		holder: uuid.NewString(), pause: pause, known: map[identity.UserID]known{},
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// document is credentials/{platform:id}; the package's comment says what the fields are.
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

// updates are d's fields by name: written so, fields that are not Parley's stay.
func (d document) updates() []firestore.Update {
	return []firestore.Update{
		{Path: "sealed", Value: d.Sealed}, {Path: "version", Value: d.Version}, {Path: "scopes", Value: d.Scopes},
		{Path: "login", Value: d.Login}, {Path: "issuedAt", Value: d.IssuedAt}, {Path: "expiresAt", Value: optional(d.ExpiresAt)},
		{Path: "validatedAt", Value: optional(d.ValidatedAt)}, {Path: "retryAt", Value: optional(d.RetryAt)},
		{Path: "leaseHolder", Value: optional(d.LeaseHolder)}, {Path: "leaseUntil", Value: optional(d.LeaseUntil)},
		{Path: "revokedAt", Value: optional(d.RevokedAt)}, {Path: "revokedWhy", Value: optional(d.RevokedWhy)},
	}
}

// optional leaves a field out that has no value.
func optional[T comparable](v T) any {
	var none T
	if v == none {
		return firestore.Delete
	}
	return v
}

// plaintext is what is sealed.
type plaintext struct {
	Access  string `json:"access"`
	Refresh string `json:"refresh,omitempty"`
}

// revision is a document as it was read; seen is zero if there was none.
type revision struct {
	document
	seen time.Time
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

// errChanged means that a document is not any more as it was read.
var errChanged = errors.New("the credential changed meanwhile")

// write stores d in place of what was read, unless that has changed. A write that was done though its answer got lost
// may be reported as errChanged.
func (k *Keeper) write(ctx context.Context, id identity.UserID, was revision, d document) error {
	var err error
	if was.seen.IsZero() {
		_, err = k.ref(id).Create(ctx, d)
	} else {
		_, err = k.ref(id).Update(ctx, d.updates(), firestore.LastUpdateTime(was.seen))
	}
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.FailedPrecondition, codes.AlreadyExists, codes.NotFound, codes.Aborted:
		return errChanged
	}
	return fmt.Errorf("write the credential: %w", err)
}

// change writes what alter makes of the document, reading it again as often as it changes in between. alter says
// false to leave it as it is; change then returns it so.
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

func (k *Keeper) seal(ctx context.Context, id identity.UserID, t Token) ([]byte, error) {
	plain, err := json.Marshal(plaintext{t.Access.Reveal(), t.Refresh.Reveal()})
	if err != nil {
		return nil, errors.New("seal the credential: it can't be encoded")
	}
	sealed, err := k.key.EncryptWithContext(ctx, plain, []byte(id.String()))
	if err != nil {
		return nil, fmt.Errorf("seal the credential: %w", err)
	}
	return sealed, nil
}

// open makes a token of a document. The key is not asked for a version that this process has already opened.
func (k *Keeper) open(ctx context.Context, id identity.UserID, d document) (Token, error) {
	t := Token{User: id, Scopes: d.Scopes, Login: d.Login, Expires: d.ExpiresAt, Validated: d.ValidatedAt, issued: d.IssuedAt, version: d.Version}
	if got, ok := k.recall(id); ok && got.token.version == d.Version && !got.unsaved {
		t.Access, t.Refresh = got.token.Access, got.token.Refresh
		return t, nil
	}
	plain, err := k.key.DecryptWithContext(ctx, d.Sealed, []byte(id.String()))
	if err != nil {
		return Token{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	var p plaintext
	if err := json.Unmarshal(plain, &p); err != nil || p.Access == "" {
		return Token{}, fmt.Errorf("%w: what is in it is no credential", ErrSealed) // the cause may quote it
	}
	t.Access, t.Refresh = NewSecret(p.Access), NewSecret(p.Refresh)
	return t, nil
}

func (k *Keeper) recall(id identity.UserID) (known, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	got, ok := k.known[id]
	return got, ok
}

// remember keeps a token that was read at a time, unless a later one is known already.
func (k *Keeper) remember(id identity.UserID, t Token, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if got, ok := k.known[id]; ok && (got.token.version > t.version || got.unsaved && got.token.version == t.version) {
		return
	}
	k.known[id] = known{token: t, at: at}
}

func (k *Keeper) forget(id identity.UserID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, id)
}

// Put stores what somebody got by logging in. It replaces what was stored for them, and undoes that it was revoked.
// That the token is id's is for the caller to know.
func (k *Keeper) Put(ctx context.Context, id identity.UserID, t Token) error {
	if id.IsZero() || t.Access.IsZero() {
		return errors.New("store a credential: it has no user or no token")
	}
	sealed, err := k.seal(ctx, id, t)
	if err != nil {
		return fmt.Errorf("store the credential of %s: %w", id, err)
	}
	validated := t.Validated
	if validated.IsZero() {
		validated = time.Unix(0, 0) // long ago, so that Check finds it
	}
	d, err := k.change(ctx, id, func(was document, _ bool) (document, bool) {
		now := k.now()
		return document{
			Sealed: sealed, Version: next(was.Version, now), Scopes: t.Scopes, Login: t.Login,
			IssuedAt: now, ExpiresAt: t.Expires, ValidatedAt: validated,
		}, true
	})
	if err != nil {
		return fmt.Errorf("store the credential of %s: %w", id, err)
	}
	k.forget(id)
	k.log.InfoContext(ctx, "credential stored", "user", id.String(), "version", d.Version, "scopes", t.Scopes)
	return nil
}

// next is the version after was. It begins with the time, so that a document which was deleted and made again doesn't
// repeat the versions that processes remember.
func next(was int64, now time.Time) int64 { return max(was+1, now.UnixMilli()) }

// Granted tells what somebody has granted so far, without opening the credential: nothing if there is none, or if it
// is of no use any more.
func (k *Keeper) Granted(ctx context.Context, id identity.UserID) ([]string, error) {
	d, err := k.read(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("credential of %s: %w", id, err)
	}
	if !d.RevokedAt.IsZero() {
		return nil, nil
	}
	return d.Scopes, nil
}

// Token gives a token of id that is valid now, as far as one can know: it has not expired, and the platform said
// within the last hour that it is good. It is refreshed if need be.
//
// The error is a [LoginNeeded] if only a person can help, or wraps [ErrUnavailable], [ErrBusy], [ErrRefused] or
// [ErrSealed]. It waits no longer than ctx allows and 40 s; the refreshing itself goes on when ctx ends, because a
// token that was issued and not stored is lost.
func (k *Keeper) Token(ctx context.Context, id identity.UserID) (Token, error) {
	if got, ok := k.recall(id); ok && !got.unsaved {
		now := k.now()
		if now.Before(got.at.Add(cacheTime)) && !got.token.due(now) {
			return got.token, nil
		}
	}
	return k.shared(ctx, id, Token{})
}

// Invalid is to be called after the platform answered 401 to used. It gives the token that has replaced it, or
// replaces it. If the platform insists on refusing a token that it has just issued, the error wraps [ErrRefused]:
// the next one would fare no better.
func (k *Keeper) Invalid(ctx context.Context, id identity.UserID, used Token) (Token, error) {
	return k.shared(ctx, id, used)
}

// due reports whether a token has to be replaced or validated before it is used.
func (t Token) due(now time.Time) bool {
	return t.expiring(now) || !now.Before(t.Validated.Add(validity))
}

// expiring reports whether a token ends too soon to be used. One that can't be refreshed is used to its end, and one
// that lasts only minutes for most of them.
func (t Token) expiring(now time.Time) bool {
	if t.Expires.IsZero() {
		return false
	}
	margin := early
	if life := t.Expires.Sub(t.issued); life < 10*margin {
		margin = max(life/10, 0)
	}
	if t.Refresh.IsZero() {
		margin = 0
	}
	return !now.Before(t.Expires.Add(-margin))
}

// shared obtains a token once for all who want the same at the moment.
func (k *Keeper) shared(ctx context.Context, id identity.UserID, bad Token) (Token, error) {
	if err := ctx.Err(); err != nil {
		return Token{}, fmt.Errorf("credential of %s: %w", id, err)
	}
	key := fmt.Sprintf("%s %d", id, bad.version)
	if bad.version == 0 && !bad.Access.IsZero() {
		key = id.String() + " " + uuid.NewString() // a token that no keeper gave: nobody else asks about the same
	}
	k.flying.Add(1)
	flight := k.flights.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), obtainTime)
		defer cancel()
		return k.obtain(ctx, id, bad)
	})
	select {
	case r := <-flight:
		k.flying.Done()
		if r.Err != nil {
			var login *LoginNeeded
			if errors.As(r.Err, &login) {
				return Token{}, login
			}
			return Token{}, fmt.Errorf("credential of %s: %w", id, r.Err)
		}
		return r.Val.(Token), nil
	case <-ctx.Done():
		go func() { // ends with the flight, which obtainTime and leaseTime bound
			<-flight
			k.flying.Done()
		}()
		return Token{}, fmt.Errorf("credential of %s: %w", id, ctx.Err())
	}
}

// Drain waits until what callers have left behind is done: a process that ends in the midst of refreshing may lose
// what the platform has issued. To be called when nobody calls the keeper any more.
func (k *Keeper) Drain(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last flight
		k.flying.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("credentials are still being refreshed: %w", ctx.Err())
	}
}

// obtain reads the credential, and has it refreshed or validated if need be: by itself if it gets the lease, else by
// whoever has it. bad is a token that must not be given again; zero for none.
func (k *Keeper) obtain(ctx context.Context, id identity.UserID, bad Token) (Token, error) {
	issuer := k.issuers[id.Platform()]
	if issuer == nil {
		return Token{}, &LoginNeeded{User: id, Why: "no authorization server is configured for its platform"}
	}
	if err := k.saveLate(ctx, id); err != nil && !errors.Is(err, errChanged) {
		return Token{}, err
	}
	waited, poll := time.Duration(0), minPoll
	for {
		was, err := k.read(ctx, id)
		if err != nil {
			return Token{}, err
		}
		now := k.now()
		switch {
		case was.seen.IsZero():
			k.forget(id)
			return Token{}, &LoginNeeded{User: id, Why: "nobody has logged in as this user"}
		case !was.RevokedAt.IsZero():
			k.forget(id)
			return Token{}, &LoginNeeded{User: id, Why: was.RevokedWhy}
		}
		t, err := k.open(ctx, id, was.document)
		if err != nil {
			return Token{}, err
		}
		refused := bad.version != 0 && bad.version == t.version || !bad.Access.IsZero() && bad.Access.Equal(t.Access)
		// usable tells whether the token can be given as a last resort
		usable := !refused && (t.Expires.IsZero() || now.Before(t.Expires))
		if !refused && !t.due(now) {
			k.remember(id, t, now)
			return t, nil
		}
		if usable && (now.Before(was.RetryAt) || now.Before(was.LeaseUntil)) {
			return t, nil // somebody else is at it, or just was: no need to wait, as the token still lasts
		}
		if now.Before(was.RetryAt) {
			return Token{}, fmt.Errorf("%w: it failed less than %s ago", ErrUnavailable, retryTime)
		}
		if !now.Before(was.LeaseUntil) {
			leased := was.document
			leased.LeaseHolder, leased.LeaseUntil = k.holder, now.Add(leaseTime)
			err := k.write(ctx, id, was, leased)
			if err == nil {
				t, err := k.renew(ctx, id, issuer, t, refused)
				switch {
				case err == nil:
					return t, nil
				case errors.Is(err, errChanged): // what was found out is about a token that is no more
					continue
				case usable && (errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRefused)):
					k.log.WarnContext(ctx, "credential not renewed; the one there is still lasts", "user", id.String(), "error", err)
					return k.open(ctx, id, leased)
				}
				return Token{}, err
			}
			if !errors.Is(err, errChanged) {
				return Token{}, err
			}
		}
		if waited >= waitTime {
			return Token{}, ErrBusy
		}
		if err := k.pause(ctx, poll); err != nil {
			return Token{}, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		waited, poll = waited+poll, min(2*poll, maxPoll)
	}
}

// renew validates or refreshes the token t of a credential that this keeper has the lease of, and stores what came of
// it. It returns errChanged if the document has got another token meanwhile.
func (k *Keeper) renew(ctx context.Context, id identity.UserID, issuer Issuer, t Token, refused bool) (Token, error) {
	// whoever waited long for the lease has the whole of it: to be cut off in the midst would lose what was issued
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTime)
	defer cancel()
	now := k.now()
	young := now.Before(t.issued.Add(fresh))
	if !t.expiring(now) && (!refused || young) {
		got, err := issuer.Validate(ctx, t.Access)
		switch {
		case err == nil && got.User != id:
			return Token{}, k.revoke(ctx, id, t.version, "its token belongs to "+got.User.String())
		case err == nil:
			t.Login, t.Scopes, t.Validated = got.Login, got.Scopes, k.now()
			if !got.Expires.IsZero() {
				t.Expires = got.Expires
			}
			if err := k.settle(ctx, id, t.version, func(d *document) {
				d.Login, d.Scopes, d.ExpiresAt, d.ValidatedAt = t.Login, t.Scopes, t.Expires, t.Validated
			}); err != nil {
				return Token{}, err
			}
			if refused {
				return Token{}, fmt.Errorf("%w: a token that it calls valid was answered with 401; is the request sent with the same client id?", ErrRefused)
			}
			k.remember(id, t, k.now())
			return t, nil
		case !errors.Is(err, ErrInvalidToken):
			return Token{}, k.postpone(ctx, id, t.version, err)
		}
	}

	got, err := issuer.Refresh(ctx, t.Refresh)
	if errors.Is(err, ErrInvalidToken) {
		why := "its authorization was withdrawn or has run out"
		if t.Refresh.IsZero() {
			why = "it has run out and came without a refresh token"
		}
		return Token{}, k.revoke(ctx, id, t.version, why)
	}
	if err != nil {
		return Token{}, k.postpone(ctx, id, t.version, err)
	}
	got.User, got.Login = id, t.Login
	if got.Scopes == nil {
		got.Scopes = t.Scopes
	}
	// Twitch wants a token validated when a session starts; that it has just issued it says the same
	got.Validated = k.now()
	got.version, got.issued = next(t.version, k.now()), got.Validated
	k.mu.Lock()
	k.known[id] = known{token: got, at: k.now(), unsaved: true, replaces: t.version}
	k.mu.Unlock()
	if err := k.saveLate(context.WithoutCancel(ctx), id); err != nil {
		k.log.ErrorContext(ctx, "a refreshed credential could not be stored; it is tried again when it is next wanted",
			"user", id.String(), "version", got.version, "error", err)
		return Token{}, err
	}
	k.log.InfoContext(ctx, "credential refreshed", "user", id.String(), "version", got.version, "expires", got.Expires)
	return got, nil
}

// saveLate stores the token that was issued to this process and is not stored yet, if there is one. It returns
// errChanged if somebody has logged in meanwhile: then that token stays.
func (k *Keeper) saveLate(ctx context.Context, id identity.UserID) error {
	got, ok := k.recall(id)
	if !ok || !got.unsaved {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, saveTime)
	defer cancel()
	t := got.token
	var sealed []byte
	for poll := minPoll; ; poll = min(2*poll, maxPoll) {
		var err error
		if sealed == nil {
			sealed, err = k.seal(ctx, id, t)
		}
		if err == nil {
			err = k.settle(ctx, id, got.replaces, func(d *document) {
				d.Sealed, d.Version, d.Scopes, d.Login = sealed, t.version, t.Scopes, t.Login
				d.IssuedAt, d.ExpiresAt, d.ValidatedAt = t.issued, t.Expires, t.Validated
			})
		}
		if errors.Is(err, errChanged) {
			k.forget(id)
			// a write whose answer got lost has stored this very token
			if d, readErr := k.read(ctx, id); readErr == nil && bytes.Equal(d.Sealed, sealed) {
				err = nil
			}
		}
		if err == nil {
			k.mu.Lock()
			k.known[id] = known{token: t, at: k.now()}
			k.mu.Unlock()
			return nil
		}
		if errors.Is(err, errChanged) {
			return err
		}
		if k.pause(ctx, poll) != nil {
			return err
		}
	}
}

// settle changes the document and gives the lease back, provided that its token is still that of a version.
func (k *Keeper) settle(ctx context.Context, id identity.UserID, version int64, alter func(*document)) error {
	changed := true
	_, err := k.change(ctx, id, func(d document, exists bool) (document, bool) {
		if changed = !exists || d.Version != version; changed {
			return d, false
		}
		// who has got a token takes back that another, who came too late with the one before, found it revoked
		d.RetryAt, d.RevokedAt, d.RevokedWhy = time.Time{}, time.Time{}, ""
		alter(&d)
		if d.LeaseHolder == k.holder {
			d.LeaseHolder, d.LeaseUntil = "", time.Time{}
		}
		return d, true
	})
	if err == nil && changed {
		return errChanged
	}
	return err
}

// postpone notes that the platform could not be asked, so that not all others try at once, and returns cause.
func (k *Keeper) postpone(ctx context.Context, id identity.UserID, version int64, cause error) error {
	at := k.now().Add(retryTime)
	_, err := k.change(ctx, id, func(d document, exists bool) (document, bool) {
		if !exists || d.Version != version {
			return d, false
		}
		d.RetryAt = at
		if d.LeaseHolder == k.holder {
			d.LeaseHolder, d.LeaseUntil = "", time.Time{}
		}
		return d, true
	})
	return errors.Join(cause, err)
}

// revoke notes that the credential is of no use any more, and returns the error that says so; or errChanged if it has
// got another token meanwhile.
func (k *Keeper) revoke(ctx context.Context, id identity.UserID, version int64, why string) error {
	err := k.settle(ctx, id, version, func(d *document) {
		d.RevokedAt, d.RevokedWhy, d.ValidatedAt = k.now(), why, time.Time{}
	})
	if err != nil {
		return err
	}
	k.forget(id)
	k.log.ErrorContext(ctx, "credential of no use any more: they have to log in again", "user", id.String(), "why", why,
		"login", LoginPath(id.Platform()))
	return &LoginNeeded{User: id, Why: why}
}

// Run validates, until ctx is done, the credentials that nobody uses: Twitch wants every token that is kept to be
// validated hourly (https://dev.twitch.tv/docs/authentication/validate-tokens/). Any number of instances may run it;
// each credential is validated by one of them.
func (k *Keeper) Run(ctx context.Context) {
	for {
		if err := k.Check(ctx); err != nil && ctx.Err() == nil {
			k.log.WarnContext(ctx, "credentials not checked", "error", err)
		}
		if k.pause(ctx, checkTime+rand.N(checkTime/2)) != nil {
			return
		}
	}
}

// Check is one round of [Keeper.Run]. What is wrong with single credentials is logged, not returned.
func (k *Keeper) Check(ctx context.Context) error {
	// one that is of no use any more has no validatedAt, so that it costs no reads
	snaps, err := k.firestore.Collection("credentials").Where("validatedAt", "<=", k.now().Add(-validity)).Select().Documents(ctx).GetAll()
	if err != nil {
		return fmt.Errorf("read the credentials: %w", err)
	}
	for _, snap := range snaps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		id, err := identity.Parse(snap.Ref.ID)
		if err != nil {
			k.log.WarnContext(ctx, "not a credential", "document", snap.Ref.ID, "error", err)
			continue
		}
		if k.issuers[id.Platform()] == nil {
			continue
		}
		var login *LoginNeeded
		if _, err := k.shared(ctx, id, Token{}); err != nil && !errors.As(err, &login) && ctx.Err() == nil {
			k.log.WarnContext(ctx, "credential not validated", "user", id.String(), "error", err)
		}
	}
	return nil
}

// Remove deletes a credential. The platform is not told; see [Twitch.Revoke].
func (k *Keeper) Remove(ctx context.Context, id identity.UserID) error {
	if _, err := k.ref(id).Delete(ctx); err != nil {
		return fmt.Errorf("delete the credential of %s: %w", id, err)
	}
	k.forget(id)
	return nil
}
