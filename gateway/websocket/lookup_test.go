package websocket

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley.internal/gateway/throttle"
	"parley.internal/shared/store"
)

func TestRandomTokensAreLimitedAndValidOnesGetIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := &tokens{byHash: map[string]store.Token{}}
		for i := range 1000 {
			held.put(fmt.Sprint("valid-", i), store.Token{UserID: fmt.Sprint("twitch:", i+1)})
		}
		a, err := newAuthenticator(held, defaults(t), time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer a.close()
		authenticate := func(token, address string) RefusalCode {
			_, refused := a.authenticate(t.Context(), token, address)
			return refused
		}
		var clients sync.WaitGroup
		for i := range 1000 { // a deploy: all clients behind one address reconnect
			clients.Go(func() {
				if refused := authenticate(fmt.Sprint("valid-", i), "a"); refused != "" {
					t.Errorf("client %d before the attack: %s", i, refused)
				}
			})
		}
		clients.Wait()

		before := held.lookups
		results := map[RefusalCode]int{}
		var mu sync.Mutex
		for i := range 3000 {
			clients.Go(func() {
				refused := authenticate(fmt.Sprint("random-", i), "a")
				mu.Lock()
				defer mu.Unlock()
				results[refused]++
			})
		}
		synctest.Wait()
		began := time.Now()
		a.cache.InvalidateAll() // as after the TTL
		for i := range 1000 {
			if refused := authenticate(fmt.Sprint("valid-", i), "a"); refused != "" {
				t.Errorf("client %d during the attack: %s", i, refused)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("known tokens waited %s", took)
		}
		clients.Wait()
		if reads := held.lookups - before - 1000; reads > 40 || results[RefuseUnknownToken] > 40 || results[RefuseLimited] < 2900 || len(results) != 2 {
			t.Errorf("%d reads, results %v", reads, results)
		}

		held.put("new", store.Token{UserID: "twitch:9999"})
		began = time.Now()
		if refused := authenticate("new", "a"); refused != "" || time.Since(began) > throttle.MaxWait {
			t.Errorf("a token that the instance has not seen: %q after %s", refused, time.Since(began))
		}
	})
}

func TestLimitedLookupsAreAnsweredWithRetryAfter(t *testing.T) {
	f := newFixture(t, nil)
	known := http.Header{"Authorization": {"Bearer token-1"}}
	if conn, _ := f.handshake(known); conn == nil {
		t.Fatal("a valid token was refused")
	}
	ctx, stop := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for { // misses, until the address must wait
		hurried, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		done, err := f.auth.lookups.Wait(hurried, "127.0.0.1")
		cancel()
		if err != nil {
			break
		}
		done(true)
	}
	for range 9 { // one look-up runs, and the others take all places
		waiting.Go(func() {
			if done, err := f.auth.lookups.Wait(ctx, "127.0.0.1"); err == nil {
				<-ctx.Done()
				done(false)
			}
		})
	}
	var reads int
	eventually(t, "429", func() bool {
		f.tokens.mu.Lock()
		reads = f.tokens.lookups
		f.tokens.mu.Unlock()
		_, resp := f.handshake(http.Header{"Authorization": {"Bearer " + time.Now().String()}})
		if resp.StatusCode != http.StatusTooManyRequests {
			return false
		}
		if resp.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		wantRefusal(t, resp, http.StatusTooManyRequests, RefuseLimited)
		return true
	})
	f.tokens.mu.Lock()
	if f.tokens.lookups != reads {
		t.Error("the store was asked")
	}
	f.tokens.mu.Unlock()
	f.auth.cache.InvalidateAll()
	if conn, resp := f.handshake(known); conn == nil {
		t.Errorf("a known token was refused with %s", resp.Status)
	}
	stop()
	waiting.Wait()
}
