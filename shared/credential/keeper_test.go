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

// ask calls f on every keeper at the same moment and returns the results.
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

func TestTenKeepersRefreshAnExpiredTokenOnce(t *testing.T) {
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
				w.t.Fatalf("Token replaced the token before its end")
			}
		}
		w.clock.Advance(4 * time.Hour)
		tokens, errs := ask(w, keepers, func(k *credential.Keeper) (credential.Token, error) { return k.Token(w.t.Context(), bot) })
		if err := errors.Join(errs...); err != nil {
			w.t.Fatal(err)
		}
		for _, got := range tokens {
			if same(got, first) || !same(got, tokens[0]) {
				w.t.Error("a keeper returned the expired token, or a different successor")
			}
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("refreshed %d times; want once", refreshes)
		}
	})
}

func TestTenKeepersReplaceARefusedTokenOnce(t *testing.T) {
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
				w.t.Error("a keeper returned the refused token, or a different successor")
			}
		}
		// a late call with the old token returns the successor
		if got, err := w.keeper().Invalid(w.t.Context(), bot, used); err != nil || !same(got, tokens[0]) {
			w.t.Errorf("Invalid of a replaced token = %v, %v; want the successor", got, err)
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

func TestEachRefreshUsesTheLatestRefreshToken(t *testing.T) {
	on(t, func(w *world) {
		bot := user(w.t, "twitch:1")
		w.put(w.keeper(), bot, w.server.issue("1", "bot", 4*time.Hour, "chat:read"))
		for range 4 {
			w.clock.Advance(4 * time.Hour)
			// a new process each time, without a cache
			if got := w.token(w.keeper(), bot); !slices.Equal(got.Scopes, []string{"chat:read"}) || !got.Expires.After(w.clock.Now()) {
				w.t.Errorf("refreshed token has scopes %v until %v", got.Scopes, got.Expires)
			}
		}
		if refreshes, _ := w.server.counts(); refreshes != 4 {
			w.t.Errorf("refreshed %d times; want 4", refreshes)
		}
	})
}

func TestAWithdrawnCredentialNeedsALogin(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		used := w.token(k, bot)
		w.server.revokeAll()
		for _, k := range []*credential.Keeper{k, k, w.keeper()} {
			_, err := k.Invalid(w.t.Context(), bot, used)
			var login *credential.LoginNeeded
			if !errors.As(w.saw(err), &login) || login.User != bot || !strings.Contains(err.Error(), "/oauth/twitch/login") {
				w.t.Fatalf("Invalid = %v; want a LoginNeeded with the login path", err)
			}
		}
		if _, err := k.Token(w.t.Context(), bot); !errors.As(w.saw(err), new(*credential.LoginNeeded)) {
			w.t.Errorf("Token = %v; want LoginNeeded", err)
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("%d refreshes of a withdrawn token; want 1", refreshes)
		}
		if scopes, err := k.Granted(w.t.Context(), bot); err != nil || scopes != nil {
			w.t.Errorf("Granted = %v, %v; want nothing", scopes, err)
		}
		again := w.server.issue("1", "bot", 4*time.Hour)
		w.put(w.keeper(), bot, again)
		if got := w.token(k, bot); !same(got, again) {
			w.t.Error("after a login, Token returned a different token")
		}
	})
}

func TestAMissingCredentialNeedsALogin(t *testing.T) {
	on(t, func(w *world) {
		for _, id := range []string{"twitch:404", "discord:1"} {
			_, err := w.keeper().Token(w.t.Context(), user(w.t, id))
			if !errors.As(w.saw(err), new(*credential.LoginNeeded)) {
				w.t.Errorf("Token(%s) = %v; want LoginNeeded", id, err)
			}
		}
	})
}

func TestDecryptionNeedsTheKeyAndTheUser(t *testing.T) {
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
			w.t.Errorf("Token from another user's ciphertext = %v; want ErrSealed", err)
		}
		w.token(k, ada)
		w.keyURI += ".other"
		if _, err := w.keeper().Token(w.t.Context(), ada); !errors.Is(w.saw(err), credential.ErrSealed) {
			w.t.Errorf("Token with another key = %v; want ErrSealed", err)
		}
	})
}

func TestOneKeeperValidatesATokenHourly(t *testing.T) {
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
		// a validation replaces scopes and name
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
			w.t.Errorf("Require of granted scopes = %v", err)
		}
	})
}

func TestUnusedCredentialsAreValidated(t *testing.T) {
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
			w.t.Errorf("validated %d, refreshed %d; want 3 validations", validates, refreshes)
		}
		if got := w.token(k, user(w.t, "twitch:4")); got.Login != "kim" || got.Expires.IsZero() {
			w.t.Errorf("validated: %s until %v", got.Login, got.Expires)
		}
		// Check finds a withdrawn credential without a use, and validates it only once
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
			w.t.Errorf("Token = %v; want LoginNeeded with the owner", err)
		}
	})
}

func TestAnUnavailablePlatformIsAskedOnce(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		first := w.server.issue("1", "bot", 4*time.Hour)
		w.put(k, bot, first)
		w.server.set(func() { w.server.fail = http.StatusServiceUnavailable })
		w.clock.Advance(time.Hour) // a validation is due
		if got := w.token(k, bot); !same(got, first) {
			w.t.Error("Token did not return a token before its end, without a validation")
		}
		w.clock.Advance(2*time.Hour + 58*time.Minute) // a refresh is due; two minutes remain
		if got := w.token(k, bot); !same(got, first) {
			w.t.Error("Token did not return a token before its end, without a refresh")
		}
		w.clock.Advance(3 * time.Minute)
		before, _ := w.server.counts()
		for _, k := range []*credential.Keeper{k, k, w.keeper()} {
			if _, err := k.Token(w.t.Context(), bot); !errors.Is(w.saw(err), credential.ErrUnavailable) {
				w.t.Errorf("Token of an expired credential = %v; want ErrUnavailable", err)
			}
		}
		if after, _ := w.server.counts(); after != before+1 {
			w.t.Errorf("%d requests to an unavailable platform at once; want 1", after-before)
		}
		w.server.set(func() { w.server.fail = 0 })
		w.clock.Advance(10 * time.Second)
		if got := w.token(k, bot); same(got, first) {
			w.t.Error("Token returned the expired token")
		}
	})
}

func TestAWrongClientSecretKeepsTheCredential(t *testing.T) {
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

func TestARefusedValidTokenIsAnError(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		for range 3 {
			if _, err := k.Invalid(w.t.Context(), bot, w.token(k, bot)); !errors.Is(w.saw(err), credential.ErrRefused) {
				w.t.Errorf("Invalid of a token just issued = %v; want ErrRefused", err)
			}
		}
		if refreshes, _ := w.server.counts(); refreshes != 0 {
			w.t.Errorf("refreshed %d times; want never", refreshes)
		}
		// a token that was withdrawn just after its issue is replaced
		used := w.token(k, bot)
		w.server.kill()
		if got, err := k.Invalid(w.t.Context(), bot, used); err != nil || same(got, used) {
			w.t.Errorf("Invalid = %v, %v; want a successor", got, err)
		}
	})
}

// lease gives the lease to another keeper.
func lease(w *world, id string, until time.Time) {
	w.t.Helper()
	if _, err := w.firestore.Doc("credentials/"+id).Update(w.t.Context(), []firestore.Update{
		{Path: "leaseHolder", Value: "somebody"}, {Path: "leaseUntil", Value: until},
	}); err != nil {
		w.t.Fatal(err)
	}
}

func TestTheLeaseOfADeadKeeperExpires(t *testing.T) {
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
			w.t.Errorf("Token after the end of its context = %v", err)
		}
		if err := k.Drain(w.t.Context()); err != nil {
			w.t.Error(err)
		}
	})
}

func TestARefreshContinuesAfterTheCallersContext(t *testing.T) {
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
			w.t.Errorf("Token = %v; want the error of the context", err)
		}
		if err := k.Drain(ctx); err == nil {
			w.t.Error("Drain ended before the refresh did")
		}
		close(hold)
		if err := k.Drain(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if got := w.token(w.keeper(), bot); same(got, first) {
			w.t.Error("the issued token is lost")
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("refreshed %d times; want once", refreshes)
		}
	})
}

func TestALoginDuringARefreshWins(t *testing.T) {
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
				w.t.Errorf("withdrawn %v: Token = %v, %v; want the token of the login", withdrawn, r.token, r.err)
			}
			if token := w.token(w.keeper(), bot); !same(token, login) {
				w.t.Errorf("withdrawn %v: the token of the login was overwritten", withdrawn)
			}
		}
	})
}

func TestAnIssuedTokenIsStoredLater(t *testing.T) {
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
		client := w.connect(option.WithGRPCConn(conn)) // closes conn
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
			w.t.Fatalf("Token = %v; want the error of the write", err)
		}
		if tries != 4 {
			w.t.Errorf("tried %d times", tries)
		}
		broken.Store(false)
		got := w.token(k, bot)
		if same(got, first) {
			w.t.Error("Token returned the expired token")
		}
		if other := w.token(w.keeper(), bot); !same(got, other) {
			w.t.Error("another keeper does not find the token stored later")
		}
		if refreshes, _ := w.server.counts(); refreshes != 1 {
			w.t.Errorf("refreshed %d times; want once", refreshes)
		}
	})
}

func TestATokenWithoutRefreshTokenIsUsedUntilItsEnd(t *testing.T) {
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

func TestADeletedCredentialNeedsALogin(t *testing.T) {
	on(t, func(w *world) {
		bot, k := user(w.t, "twitch:1"), w.keeper()
		w.put(k, bot, w.server.issue("1", "bot", 4*time.Hour))
		w.token(k, bot)
		if _, err := w.firestore.Collection("credentials").Doc(bot.String()).Delete(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		w.clock.Advance(time.Minute) // the deletion takes effect within this time
		if _, err := k.Token(w.t.Context(), bot); !errors.As(w.saw(err), new(*credential.LoginNeeded)) {
			w.t.Errorf("Token = %v; want LoginNeeded", err)
		}
	})
}

func TestForeignFieldsOfTheDocumentStay(t *testing.T) {
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
