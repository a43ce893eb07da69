package instance

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley.internal/gateway/discord"
	"parley.internal/gateway/oauth"
	"parley.internal/gateway/twitch"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/identity"
)

// service connects an instance to a platform.
type service interface {
	Deliverer
	// Run works until ctx is done, then releases the platform's leases. Every accepted answer stays in the ledger until
	// it is settled, so an early end of Run loses nothing.
	Run(ctx context.Context)
}

// addPlatforms makes the services of the configured platforms, and adds the login pages to mux. It starts no goroutine.
func (i *Instance) addPlatforms(ctx context.Context, c Config, mux *http.ServeMux, metrics prometheus.Registerer, now func() time.Time) error {
	ledger := delivery.NewLedger(i.firestore, i.id, now)
	reaper := delivery.NewReaper(ledger, deadletter.NewStore(i.firestore, now), i.bus, "gateway", 0)
	if c.Discord.Enabled() {
		s, err := discord.New(c.Discord, discord.Dependencies{
			Instance: i.id, Firestore: i.firestore, Ledger: ledger, Reaper: reaper,
			Publisher: i.bus, Lease: c.Lease, Log: i.log, Metrics: metrics, Now: now,
		})
		if err != nil {
			return fmt.Errorf("connect to Discord: %w", err)
		}
		i.addService(identity.Discord, s)
	}
	app := c.OAuth.Credential.Twitch
	if !app.Enabled() {
		return nil
	}
	key, err := credential.OpenKey(ctx, c.OAuth.Credential.Key)
	if err != nil {
		return err
	}
	issuer := credential.NewTwitch(app, now)
	i.keeper = credential.NewKeeper(credential.Dependencies{
		Firestore: i.firestore, Key: key, Log: i.log, Now: now,
		Issuers: map[identity.Platform]credential.Issuer{identity.Twitch: issuer},
	})
	login, err := oauth.New(c.OAuth, oauth.Dependencies{Keeper: i.keeper, Server: issuer, Firestore: i.firestore, Log: i.log, Now: now, Proxies: c.proxies(), LoggedIn: i.announceLogin})
	if err != nil {
		return err
	}
	mux.Handle("GET /oauth/", login)
	mux.Handle("POST /oauth/", login)
	if !c.Twitch.Enabled() {
		return nil
	}
	chat, err := twitch.New(c.Twitch, twitch.Dependencies{
		Instance: i.id, App: app, Tokens: i.keeper, Firestore: i.firestore, Ledger: ledger,
		Reaper: reaper, Publisher: i.bus, Lease: c.Lease, Log: i.log, Metrics: metrics, Now: now,
	})
	if err != nil {
		return fmt.Errorf("connect to Twitch: %w", err)
	}
	i.addService(identity.Twitch, chat)
	i.onLogin = chat.LoggedIn
	return nil
}

// addService registers a service as the deliverer of its platform.
func (i *Instance) addService(p identity.Platform, s service) {
	i.deliverers[p] = s
	i.services = append(i.services, s)
}

// runServices runs the services and the credential keeper until ctx is done. ended is closed after all of these have
// returned.
func (i *Instance) runServices(ctx context.Context) (ended <-chan struct{}) {
	var running sync.WaitGroup
	for _, s := range i.services {
		running.Go(func() { s.Run(ctx) })
	}
	if i.keeper != nil {
		running.Go(func() { i.keeper.Run(ctx) })
	}
	done := make(chan struct{})
	go func() { // ends with the services
		running.Wait()
		close(done)
	}()
	return done
}
