package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/twitch"
	"parley.internal/gateway/moderator"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/moderation"
)

// A moderator requests a ban from a client, and a time-out by a command in Twitch's chat. Twitch must execute each
// command once. A request without permission becomes a dead letter.
func TestModerationCommandsRunOnceOnTwitch(t *testing.T) {
	t.Parallel()
	tw, err := twitch.New(twitch.WithLimits(twitch.Limits{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tw.Close() })
	account := func(login string) twitch.User {
		u, err := tw.AddUser(twitch.User{Login: login})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	bot, mod, bob, carl := account("parleybot"), account("mod"), account("bob"), account("carl")
	for _, channel := range []string{"streamer", "elsewhere"} {
		account(channel)
		if err := tw.SetRole(channel, bot.Login, twitch.Role{Moderator: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.SetRole("streamer", mod.Login, twitch.Role{Moderator: true}); err != nil {
		t.Fatal(err)
	}
	app, err := tw.AddApp(twitch.App{})
	if err != nil {
		t.Fatal(err)
	}
	scopes := []string{"chat:read", "chat:edit", "user:write:chat", "moderator:manage:banned_users", "moderator:manage:chat_messages"}
	token, err := tw.AddToken(twitch.Token{UserID: bot.ID, ClientID: app.ID, Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}

	seed := filepath.Join(t.TempDir(), "seed.yaml")
	if err := os.WriteFile(seed, []byte(`
users:
  api-gateway:eve: {roles: [moderator]}
  api-gateway:frank: {}
rules:
  timeout:
    enabled: true
    when: event.message.text.startsWith("!timeout ") && "moderator" in event.user.roles
    action:
      action: timeout
      login: '{{ event.message.text.split(" ")[1] }}'
      durationSeconds: '{{ event.message.text.split(" ")[2] }}'
      reason: asked for by {{ event.user.displayName }}
  ping:
    enabled: true
    when: event.message.text == "!ping"
    candidates: [{text: pong}]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	key := "file:" + filepath.Join(t.TempDir(), "key")
	p := start(t, []string{
		"CREDENTIAL_KEY=" + key, "TWITCH_CLIENT_ID=" + app.ID, "TWITCH_CLIENT_SECRET=" + app.Secret, "TWITCH_BOT_USER_ID=" + bot.ID,
		"TWITCH_API_URL=" + tw.HelixURL(), "TWITCH_OAUTH_URL=" + tw.OAuthURL(), "TWITCH_IRC_ADDR=" + tw.IRCAddr(), "TWITCH_IRC_TLS=false",
		"TWITCH_CHANNELS=streamer,elsewhere", "LEASE_SEATS=1", "LEASE_TTL=1m", // No channel moves during the test: Twitch has no history.
	}, "--gateways", "2", "--seed", seed)
	db := firestoreClient(t, p)
	login(t, db, key, bot, app, tw, token, scopes)
	for _, channel := range []string{"streamer", "elsewhere"} {
		until(t, "the bot to be in "+channel, func() bool { return slices.Equal(tw.Joined(channel), []string{bot.Login}) })
	}

	ask := func(c *client, id, userID string) {
		t.Helper()
		if err := c.conn.WriteJSON(map[string]any{
			"type": moderation.Type, "metadata": map[string]any{"id": id},
			"payload": map[string]any{"action": "ban", "channel": "twitch:streamer", "userId": userID, "reason": "spam"},
		}); err != nil {
			t.Fatal(err)
		}
	}
	eve, frank, frank2 := connect(t, p, 0, "api-gateway:eve"), connect(t, p, 1, "api-gateway:frank"), connect(t, p, 0, "api-gateway:frank")
	ask(eve, "a1", "twitch:"+bob.ID)
	ask(eve, "a1", "twitch:"+bob.ID) // repeated, as after a lost connection
	for n := range 10 {
		ask(frank, fmt.Sprint("a2-", n), "twitch:"+carl.ID)
		ask(frank2, fmt.Sprint("a3-", n), "twitch:"+carl.ID)
	}
	for _, text := range []string{"!timeout @carl 60", "!ping"} { // the second is answered after the first
		for _, channel := range []string{"streamer", "elsewhere"} {
			if _, err := tw.Say(channel, mod.Login, text); err != nil {
				t.Fatal(err)
			}
		}
	}

	done := func(channel string) (all []string) {
		for _, a := range tw.Actions(channel) {
			all = append(all, fmt.Sprint(a.By, " ", a.Kind, " ", a.Login, " ", a.Duration, " ", a.Reason))
		}
		slices.Sort(all)
		return all
	}
	want := []string{"parleybot ban bob 0s spam", "parleybot timeout carl 1m0s asked for by mod"}
	until(t, "Twitch to do both", func() bool { return len(done("streamer")) >= len(want) })
	var refused []deadletter.DeadLetter
	until(t, "the dead letter of the command without permission", func() bool {
		refused = nil
		err := deadletter.NewStore(db, time.Now).List(t.Context(), deadletter.Filter{Reason: deadletter.Forbidden}, func(l deadletter.DeadLetter) error {
			refused = append(refused, l)
			return nil
		})
		return err == nil && len(refused) == 1
	})
	until(t, "the answer to the next message in the other channel", func() bool {
		return slices.ContainsFunc(tw.Said("elsewhere"), func(l twitch.Line) bool { return l.Login == bot.Login && l.Text == "pong" })
	})
	for _, id := range []string{"api-gateway:eve", "twitch:" + mod.ID} {
		commands := func() []delivery.Entry {
			return slices.DeleteFunc(deliveries(t, db, id), func(e delivery.Entry) bool { return e.Type != event.EgressEvent })
		}
		ds := commands()
		if len(ds) != 1 {
			t.Errorf("%d commands of %s; want 1, because a moderator of one channel has no permission in another channel", len(ds), id)
			continue
		}
		until(t, "the command to be settled", func() bool { return commands()[0].State == delivery.Delivered })
		r, err := moderator.NewRecords(db, "test", time.Now).Get(t.Context(), ds[0].ID)
		if err != nil || r.AskedBy.UserID != id || r.Outcome != moderator.Done && r.Outcome != moderator.Held {
			t.Errorf("record = %+v, %v", r, err)
		}
	}
	if got := done("streamer"); !slices.Equal(got, want) {
		t.Errorf("Twitch executed %q; want %q", got, want)
	}
	if got := done("elsewhere"); len(got) != 0 {
		t.Errorf("Twitch executed %q in the channel without permission", got)
	}
}

// login stores the bot's token, like a login in the browser.
func login(t *testing.T, db *firestore.Client, key string, bot twitch.User, app twitch.App, tw *twitch.Server, token twitch.Token, scopes []string) {
	t.Helper()
	k, err := credential.OpenKey(t.Context(), key)
	id, idErr := identity.New(identity.Twitch, bot.ID)
	if err := errors.Join(err, idErr); err != nil {
		t.Fatal(err)
	}
	keeper := credential.NewKeeper(credential.Dependencies{
		Firestore: db, Key: k, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Issuers: map[identity.Platform]credential.Issuer{identity.Twitch: credential.NewTwitch(credential.TwitchConfig{
			ClientID: app.ID, ClientSecret: credential.NewSecret(app.Secret), OAuthURL: tw.OAuthURL(),
		}, time.Now)},
	})
	if err := keeper.Put(t.Context(), id, credential.Token{
		User: id, Access: credential.NewSecret(token.Access), Refresh: credential.NewSecret(token.Refresh), Scopes: scopes, Login: bot.Login, Validated: time.Now(),
	}); err != nil {
		t.Fatal(err)
	}
}
