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

// service is an instance's part in a platform that it connects to by itself: it listens and speaks there while it runs.
type service interface {
	Deliverer
	// Run works until ctx is done, then gives back what it holds. Whatever Deliver took stands in the ledger until it is
	// settled, so that ending early loses nothing.
	Run(ctx context.Context)
}

// connect makes the services of the platforms that are configured, and the pages on which people let Parley act for
// them, which it adds to mux. Nothing runs yet.
func (i *Instance) connect(ctx context.Context, c Config, mux *http.ServeMux, metrics prometheus.Registerer, now func() time.Time) error {
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
		i.serve(identity.Discord, s)
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
	login, err := oauth.New(c.OAuth, oauth.Dependencies{Keeper: i.keeper, Server: issuer, Firestore: i.firestore, Log: i.log, Now: now})
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
	i.serve(identity.Twitch, chat)
	return nil
}

// serve has a service deliver what goes to its platform.
func (i *Instance) serve(p identity.Platform, s service) {
	i.deliverers[p] = s
	i.services = append(i.services, s)
}

// runServices runs the services, and what keeps their credentials, until ctx is done. ended is closed when all of them
// have given back what they held.
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
