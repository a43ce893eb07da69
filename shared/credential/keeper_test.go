package credential_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"parley.internal/shared/credential"
)

// ask has every keeper do the same at the same moment and returns what they got.
func ask(w *world, keepers []*credential.Keeper, do func(*credential.Keeper) (credential.Token, error)) ([]credential.Token, []error) {
	tokens, errs := make([]credential.Token, len(keepers)), make([]error, len(keepers))
	start := make(chan struct{})
	var all sync.WaitGroup
	for i, k := range keepers {
		all.Go(func() {
			<-start
			tokens[i], errs[i] = do(k)
			w.saw(errs[i])
		})
	}
	close(start)
	all.Wait()
	return tokens, errs
}

func TestTenKeepersThatWantAnExpiredTokenRefreshItOnce(t *testing.T) {
	on(t, func(w *world) {
		bot := user(w.t, "twitch:1")
		var keepers []*credential.Keeper
		for range 10 {
			keepers = append(keepers, w.keeper())
		}
		first := w.server.issue("1", "bot", 4*time.Hour, "chat:read")
		w.put(keepers[0], bot, first)
		for _, k := range keepers {
			if got := w.token(k, bot); !same(got, first) {
				w.t.Fatalf("before it expired, Token gave another one")
			}
		}
		w.clock.Advance(4 * time.Hour)
		tokens, errs := ask(w, keepers, func(k *credential.Keeper) (credential.Token, error) { return k.Token(w.t.Context(), bot) })
		if err := errors.Join(errs...); err != nil {
			w.t.Fatal(err)
		}
		for _, got := range tokens {
			if same(got, first) || !same(got, tokens[0]) {
				w.t.Error("a keeper gave the expired token, or another than the others did")
			}
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("refreshed %d times; want once", refreshes)
		}
	})
}

func TestTenKeepersThatWereRefusedRefreshOnce(t *testing.T) {
	on(t, func(w *world) {
		bot := user(w.t, "twitch:1")
		var keepers []*credential.Keeper
		for range 10 {
			keepers = append(keepers, w.keeper())
		}
		used := w.server.issue("1", "bot", 4*time.Hour, "chat:read")
		w.put(keepers[0], bot, used)
		used = w.token(keepers[0], bot)
		w.clock.Advance(10 * time.Minute)
		w.server.kill()
		tokens, errs := ask(w, keepers, func(k *credential.Keeper) (credential.Token, error) { return k.Invalid(w.t.Context(), bot, used) })
		if err := errors.Join(errs...); err != nil {
			w.t.Fatal(err)
		}
		for _, got := range tokens {
			if same(got, used) || !same(got, tokens[0]) {
				w.t.Error("a keeper gave the refused token, or another than the others did")
			}
		}
		// one who comes late with the old token gets the new one
		if got, err := w.keeper().Invalid(w.t.Context(), bot, used); err != nil || !same(got, tokens[0]) {
			w.t.Errorf("Invalid of a token that was replaced = %v, %v; want what replaced it", got, err)
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("refreshed %d times; want once", refreshes)
		}
	})
}

func TestCallersOfOneKeeperShareOneRefresh(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		w.clock.Advance(5 * time.Hour)
		if _, errs := ask(w, slices.Repeat([]*credential.Keeper{k}, 50), func(k *credential.Keeper) (credential.Token, error) {
			return k.Token(w.t.Context(), bot)
		}); errors.Join(errs...) != nil {
			w.t.Fatal(errors.Join(errs...))
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("refreshed %d times; want once", refreshes)
		}
	})
}

func TestEachRefreshUsesTheRefreshTokenOfTheOneBefore(t *testing.T) {
	on(t, func(w *world) {
		bot := user(w.t, "twitch:1")
		w.put(w.keeper(), bot, w.server.issue("1", "bot", 4*time.Hour, "chat:read"))
		for range 4 {
			w.clock.Advance(4 * time.Hour)
			// each time another process, which knows only what is stored
			if got := w.token(w.keeper(), bot); !slices.Equal(got.Scopes, []string{"chat:read"}) || !got.Expires.After(w.clock.Now()) {
				w.t.Errorf("refreshed token has scopes %v until %v", got.Scopes, got.Expires)
			}
		}
		if refreshes, _ := w.server.counts(); refreshes != 4 {
			w.t.Errorf("refreshed %d times; want 4", refreshes)
		}
	})
}

func TestAWithdrawnCredentialWantsALogin(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		used := w.token(k, bot)
		w.server.revokeAll()
		for _, k := range []*credential.Keeper{k, k, w.keeper()} {
			_, err := k.Invalid(w.t.Context(), bot, used)
			var login *credential.LoginNeeded
			if !errors.As(w.saw(err), &login) || login.User != bot || !strings.Contains(err.Error(), "/oauth/twitch/login") {
				w.t.Fatalf("Invalid = %v; want a LoginNeeded that says where", err)
			}
		}
		if _, err := k.Token(w.t.Context(), bot); !errors.As(w.saw(err), new(*credential.LoginNeeded)) {
			w.t.Errorf("Token = %v; want LoginNeeded", err)
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("asked %d times to refresh what is withdrawn; want once", refreshes)
		}
		if scopes, err := k.Granted(w.t.Context(), bot); err != nil || scopes != nil {
			w.t.Errorf("Granted = %v, %v; want nothing", scopes, err)
		}
		again := w.server.issue("1", "bot", 4*time.Hour)
		w.put(w.keeper(), bot, again)
		if got := w.token(k, bot); !same(got, again) {
			w.t.Error("after a new login Token gave another token than that of the login")
		}
	})
}

func TestNobodyLoggedIn(t *testing.T) {
	on(t, func(w *world) {
		for _, id := range []string{"twitch:404", "discord:1"} {
			_, err := w.keeper().Token(w.t.Context(), user(w.t, id))
			if !errors.As(w.saw(err), new(*credential.LoginNeeded)) {
				w.t.Errorf("Token(%s) = %v; want LoginNeeded", id, err)
			}
		}
	})
}

func TestACredentialOpensOnlyWithItsKeyForItsUser(t *testing.T) {
	on(t, func(w *world) {
		ada, eve, k := user(w.t, "twitch:1"), user(w.t, "twitch:2"), w.keeper()
		w.put(k, ada, w.server.issue("1", "ada", 4*time.Hour))
		w.put(k, eve, w.server.issue("2", "eve", 4*time.Hour))
		snap, err := w.firestore.Doc("credentials/twitch:1").Get(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		if _, err := w.firestore.Doc("credentials/twitch:2").Set(w.t.Context(), snap.Data()); err != nil {
			w.t.Fatal(err)
		}
		if _, err := k.Token(w.t.Context(), eve); !errors.Is(w.saw(err), credential.ErrSealed) {
			w.t.Errorf("Token from another's ciphertext = %v; want ErrSealed", err)
		}
		w.token(k, ada)
		w.keyURI += ".other"
		if _, err := w.keeper().Token(w.t.Context(), ada); !errors.Is(w.saw(err), credential.ErrSealed) {
			w.t.Errorf("Token with another key = %v; want ErrSealed", err)
		}
	})
}

func TestATokenIsValidatedHourlyByOneOfAll(t *testing.T) {
	on(t, func(w *world) {
		bot := user(w.t, "twitch:1")
		keepers := []*credential.Keeper{w.keeper(), w.keeper(), w.keeper()}
		w.put(keepers[0], bot, w.server.issue("1", "bot", 40*time.Hour, "chat:read", "chat:edit"))
		for hour := 1; hour <= 3; hour++ {
			w.clock.Advance(time.Hour)
			_, errs := ask(w, keepers, func(k *credential.Keeper) (credential.Token, error) { return k.Token(w.t.Context(), bot) })
			if err := errors.Join(errs...); err != nil {
				w.t.Fatal(err)
			}
			if _, validates := w.server.counts(); validates != hour {
				w.t.Errorf("validated %d times in %d hours", validates, hour)
			}
		}
		// what the platform says goes: a scope less, another name
		w.server.set(func() {
			for access, g := range w.server.grants {
				g.scopes, g.login = []string{"chat:read"}, "renamed"
				w.server.grants[access] = g
			}
		})
		w.clock.Advance(time.Hour)
		got := w.token(keepers[1], bot)
		if got.Login != "renamed" || !slices.Equal(got.Scopes, []string{"chat:read"}) {
			w.t.Errorf("after validation: %s, %v", got.Login, got.Scopes)
		}
		err := w.saw(got.Require("chat:read", "chat:edit", "user:manage:whispers"))
		var missing *credential.MissingScopes
		if !errors.As(err, &missing) || !slices.Equal(missing.Missing, []string{"chat:edit", "user:manage:whispers"}) || missing.User != bot {
			w.t.Errorf("Require = %v", err)
		}
		if err := got.Require("chat:read"); err != nil {
			w.t.Errorf("Require of what is granted = %v", err)
		}
	})
}

func TestIdleCredentialsAreValidatedToo(t *testing.T) {
	on(t, func(w *world) {
		k := w.keeper()
		w.put(k, user(w.t, "twitch:1"), w.server.issue("1", "ada", 40*time.Hour))
		w.put(k, user(w.t, "twitch:2"), w.server.issue("2", "eve", 40*time.Hour))
		w.clock.Advance(30 * time.Minute)
		w.put(k, user(w.t, "twitch:3"), w.server.issue("3", "bob", 40*time.Hour))
		imported := w.server.issue("4", "kim", 40*time.Hour)
		imported.Validated, imported.Expires, imported.Scopes = time.Time{}, time.Time{}, nil
		w.put(k, user(w.t, "twitch:4"), imported)
		w.clock.Advance(30 * time.Minute)
		if err := errors.Join(w.keeper().Check(w.t.Context()), w.keeper().Check(w.t.Context())); err != nil {
			w.t.Fatal(err)
		}
		if refreshes, validates := w.server.counts(); validates != 3 || refreshes != 0 {
			w.t.Errorf("validated %d, refreshed %d; want the 3 that are due validated", validates, refreshes)
		}
		if got := w.token(k, user(w.t, "twitch:4")); got.Login != "kim" || got.Expires.IsZero() {
			w.t.Errorf("validated: %s until %v", got.Login, got.Expires)
		}
		// a withdrawn one is found without being used, and not asked about again
		w.server.revokeAll()
		w.clock.Advance(time.Hour)
		if err := errors.Join(w.keeper().Check(w.t.Context()), w.keeper().Check(w.t.Context())); err != nil {
			w.t.Fatal(err)
		}
		if refreshes, _ := w.server.counts(); refreshes != 4 {
			w.t.Errorf("refreshed %d times; want each once", refreshes)
		}
		if !strings.Contains(w.log.String(), "credential revoked: a new login is needed") {
			w.t.Errorf("the revocation was not logged:\n%s", w.log.String())
		}
	})
}

func TestATokenOfAnotherUserIsNotUsed(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		foreign := w.server.issue("666", "eve", 4*time.Hour)
		foreign.Validated = time.Time{}
		w.put(k, bot, foreign)
		_, err := k.Token(w.t.Context(), bot)
		if !errors.As(w.saw(err), new(*credential.LoginNeeded)) || !strings.Contains(err.Error(), "twitch:666") {
			w.t.Errorf("Token = %v; want LoginNeeded that names whose it is", err)
		}
	})
}

func TestAPlatformThatIsDown(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		first := w.server.issue("1", "bot", 4*time.Hour)
		w.put(k, bot, first)
		w.server.set(func() { w.server.fail = http.StatusServiceUnavailable })
		w.clock.Advance(time.Hour) // to be validated
		if got := w.token(k, bot); !same(got, first) {
			w.t.Error("a token that can't be validated, but lasts, is not given")
		}
		w.clock.Advance(2*time.Hour + 58*time.Minute) // to be refreshed, but lasts for two minutes
		if got := w.token(k, bot); !same(got, first) {
			w.t.Error("a token that can't be refreshed, but lasts, is not given")
		}
		w.clock.Advance(3 * time.Minute)
		before, _ := w.server.counts()
		for _, k := range []*credential.Keeper{k, k, w.keeper()} {
			if _, err := k.Token(w.t.Context(), bot); !errors.Is(w.saw(err), credential.ErrUnavailable) {
				w.t.Errorf("Token of an expired one = %v; want ErrUnavailable", err)
			}
		}
		if after, _ := w.server.counts(); after != before+1 {
			w.t.Errorf("a platform that is down was asked %d times at once; want once", after-before)
		}
		w.server.set(func() { w.server.fail = 0 })
		w.clock.Advance(10 * time.Second)
		if got := w.token(k, bot); same(got, first) {
			w.t.Error("the expired token was given")
		}
	})
}

func TestAWrongClientSecretCostsNobodyTheirLogin(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		w.clock.Advance(4 * time.Hour)
		w.server.set(func() { w.server.fail = http.StatusForbidden })
		if _, err := k.Token(w.t.Context(), bot); !errors.Is(w.saw(err), credential.ErrRefused) {
			w.t.Errorf("Token = %v; want ErrRefused", err)
		}
		w.server.set(func() { w.server.fail = 0 })
		w.clock.Advance(10 * time.Second)
		w.token(k, bot)
	})
}

func TestATokenThatIsRefusedThoughItIsValid(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		for range 3 {
			if _, err := k.Invalid(w.t.Context(), bot, w.token(k, bot)); !errors.Is(w.saw(err), credential.ErrRefused) {
				w.t.Errorf("Invalid of a token that was just issued = %v; want ErrRefused", err)
			}
		}
		if refreshes, _ := w.server.counts(); refreshes != 0 {
			w.t.Errorf("refreshed %d times; want never", refreshes)
		}
		// one that was just issued and is withdrawn already is no such case
		used := w.token(k, bot)
		w.server.kill()
		if got, err := k.Invalid(w.t.Context(), bot, used); err != nil || same(got, used) {
			w.t.Errorf("Invalid = %v, %v; want another", got, err)
		}
	})
}

// lease makes somebody else the one who refreshes.
func lease(w *world, id string, until time.Time) {
	w.t.Helper()
	if _, err := w.firestore.Doc("credentials/"+id).Update(w.t.Context(), []firestore.Update{
		{Path: "leaseHolder", Value: "somebody"}, {Path: "leaseUntil", Value: until},
	}); err != nil {
		w.t.Fatal(err)
	}
}

func TestOneWhoDiedWhileRefreshingIsReplaced(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		w.clock.Advance(4 * time.Hour)
		lease(w, "twitch:1", w.clock.Now().Add(20*time.Second))
		k.SetPause(func(ctx context.Context, d time.Duration) error {
			w.clock.Advance(d)
			return ctx.Err()
		})
		began := w.clock.Now()
		w.token(k, bot)
		if waited := w.clock.Now().Sub(began); waited < 20*time.Second || waited > 25*time.Second {
			w.t.Errorf("waited %v for a lease of 20s", waited)
		}
	})
}

func TestWaitingEnds(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		w.clock.Advance(4 * time.Hour)
		lease(w, "twitch:1", w.clock.Now().Add(time.Hour))
		k.SetPause(immediately)
		if _, err := k.Token(w.t.Context(), bot); !errors.Is(w.saw(err), credential.ErrBusy) {
			w.t.Errorf("Token = %v; want ErrBusy", err)
		}
		ctx, cancel := context.WithCancel(w.t.Context())
		k.SetPause(func(ctx context.Context, _ time.Duration) error {
			cancel()
			return immediately(ctx, 0)
		})
		if _, err := k.Token(ctx, bot); !errors.Is(w.saw(err), context.Canceled) && !errors.Is(err, credential.ErrBusy) {
			w.t.Errorf("Token of one who left = %v", err)
		}
		if err := k.Drain(w.t.Context()); err != nil {
			w.t.Error(err)
		}
	})
}

func TestARefreshGoesOnWhenItsCallerLeaves(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		first := w.server.issue("1", "bot", 4*time.Hour)
		w.put(k, bot, first)
		w.clock.Advance(4 * time.Hour)
		hold := make(chan struct{})
		w.server.set(func() { w.server.hold = hold })
		ctx, leave := context.WithCancel(w.t.Context())
		left := make(chan error)
		go func() {
			_, err := k.Token(ctx, bot)
			left <- err
		}()
		<-w.server.held
		leave()
		if err := <-left; !errors.Is(w.saw(err), context.Canceled) {
			w.t.Errorf("Token = %v; want what ended it", err)
		}
		if err := k.Drain(ctx); err == nil {
			w.t.Error("Drain ended before the refresh did")
		}
		close(hold)
		if err := k.Drain(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if got := w.token(w.keeper(), bot); same(got, first) {
			w.t.Error("what was issued is lost")
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("refreshed %d times; want once", refreshes)
		}
	})
}

func TestALoginMeanwhileWins(t *testing.T) {
	on(t, func(w *world) {
		for _, withdrawn := range []bool{false, true} {
			bot, k := user(w.t, "twitch:1"), w.keeper()
			w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
			w.clock.Advance(4 * time.Hour)
			if withdrawn {
				w.server.revokeAll()
			}
			hold := make(chan struct{})
			w.server.set(func() { w.server.hold = hold })
			type result struct {
				token credential.Token
				err   error
			}
			got := make(chan result)
			go func() {
				token, err := k.Token(w.t.Context(), bot)
				got <- result{token, err}
			}()
			<-w.server.held
			login := w.server.issue("1", "bot", 4*time.Hour, "user:write:chat")
			w.put(w.keeper(), bot, login)
			w.server.set(func() { w.server.hold = nil })
			close(hold)
			if r := <-got; r.err != nil || !same(r.token, login) {
				w.t.Errorf("withdrawn %v: Token = %v, %v; want that of the login", withdrawn, r.token, r.err)
			}
			if token := w.token(w.keeper(), bot); !same(token, login) {
				w.t.Errorf("withdrawn %v: what the login gave was overwritten", withdrawn)
			}
		}
	})
}

func TestANewTokenThatCouldNotBeStoredIsStoredLater(t *testing.T) {
	on(t, func(w *world) {
		bot := user(w.t, "twitch:1")
		var broken atomic.Bool
		conn, err := grpc.NewClient(w.env.Firestore, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(
			func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if broken.Load() && strings.HasSuffix(method, "/Commit") {
					return status.Error(codes.PermissionDenied, "no writing today")
				}
				return invoke(ctx, method, req, reply, cc, opts...)
			}))
		if err != nil {
			w.t.Fatal(err)
		}
		client := w.connect(option.WithGRPCConn(conn)) // which closes it
		k := w.keeperOn(client)
		first := w.server.issue("1", "bot", 4*time.Hour)
		w.put(k, bot, first)
		w.clock.Advance(4 * time.Hour)
		hold := make(chan struct{})
		w.server.set(func() { w.server.hold = hold })
		tries := 0
		k.SetPause(func(context.Context, time.Duration) error {
			if tries++; tries > 3 {
				return context.DeadlineExceeded
			}
			return nil
		})
		failed := make(chan error)
		go func() {
			_, err := k.Token(w.t.Context(), bot)
			failed <- err
		}()
		<-w.server.held
		broken.Store(true)
		close(hold)
		if err := <-failed; err == nil || !strings.Contains(w.saw(err).Error(), "no writing today") {
			w.t.Fatalf("Token = %v; want why it can't be stored", err)
		}
		if tries != 4 {
			w.t.Errorf("tried %d times", tries)
		}
		broken.Store(false)
		got := w.token(k, bot)
		if same(got, first) {
			w.t.Error("the expired token was given")
		}
		if other := w.token(w.keeper(), bot); !same(got, other) {
			w.t.Error("another keeper doesn't find what was stored later")
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("refreshed %d times; want once", refreshes)
		}
	})
}

func TestATokenWithoutARefreshTokenIsUsedToItsEnd(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		only := w.server.issue("1", "bot", 4*time.Hour)
		only.Refresh = credential.Secret{}
		w.put(k, bot, only)
		w.clock.Advance(4*time.Hour - time.Second)
		w.token(k, bot)
		w.clock.Advance(time.Second)
		if _, err := k.Token(w.t.Context(), bot); !errors.As(w.saw(err), new(*credential.LoginNeeded)) {
			w.t.Errorf("Token after its end = %v; want LoginNeeded", err)
		}
	})
}

func TestARemovedCredentialIsGone(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		w.token(k, bot)
		if err := k.Remove(w.t.Context(), bot); err != nil {
			w.t.Fatal(err)
		}
		if _, err := k.Token(w.t.Context(), bot); !errors.As(w.saw(err), new(*credential.LoginNeeded)) {
			w.t.Errorf("Token = %v; want LoginNeeded", err)
		}
	})
}

func TestAnOperatorsOwnFieldsStay(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		doc := w.firestore.Doc("credentials/twitch:1")
		if _, err := doc.Set(w.t.Context(), map[string]any{"note": "Ada's"}, firestore.MergeAll); err != nil {
			w.t.Fatal(err)
		}
		w.clock.Advance(4 * time.Hour)
		w.token(k, bot)
		snap, err := doc.Get(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for field, want := range map[string]bool{"note": true, "sealed": true, "leaseHolder": false, "leaseUntil": false, "retryAt": false, "revokedAt": false} {
			if _, ok := snap.Data()[field]; ok != want {
				w.t.Errorf("field %s stands there: %v", field, ok)
			}
		}
	})
}

func TestRunChecksUntilItsContextEnds(t *testing.T) {
	on(t, func(w *world) {
		k := w.keeper()
		w.put(k, user(w.t, "twitch:1"), w.server.issue("1", "ada", 40*time.Hour))
		ctx, stop := context.WithCancel(w.t.Context())
		rounds := 0
		k.SetPause(func(ctx context.Context, d time.Duration) error {
			w.clock.Advance(d)
			if rounds++; rounds == 24 { // two hours, and up to half as much again
				stop()
			}
			return ctx.Err()
		})
		k.Run(ctx)
		if _, validates := w.server.counts(); validates < 2 || validates > 3 {
			w.t.Errorf("validated %d times within two or three hours", validates)
		}
	})
}
