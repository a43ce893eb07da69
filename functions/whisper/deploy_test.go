package whisper

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"parley.internal/emulator/emulatortest"
	pubsubserver "parley.internal/emulator/pubsub"
	"parley.internal/emulator/twitch"
	"parley.internal/shared/bus"
	"parley.internal/shared/credential"
	"parley.internal/shared/deadletter"
	"parley.internal/shared/delivery"
	"parley.internal/shared/event"
	"parley.internal/shared/identity"
	"parley.internal/shared/topology"
)

// pushed is the message of a push.
func pushed(t *testing.T, in bus.Incoming) bus.Message {
	t.Helper()
	data, err := event.Encode(in.Event)
	if err != nil {
		t.Fatal(err)
	}
	return bus.Message{Topic: topology.Egress, ID: "m1", Data: data, Attributes: in.Attributes, Published: time.Now()}
}

// startPubSub starts the embedded Pub/Sub with the only topic of the function. The function does not depend on the
// differences to Google's emulator.
func startPubSub(t *testing.T, env emulatortest.Env) {
	t.Helper()
	server, err := pubsubserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	t.Setenv("PUBSUB_EMULATOR_HOST", server.Addr())
	admin, err := pubsub.NewClient(t.Context(), env.Project)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	topic := topology.Prefix{}.Topic(env.Project, topology.DeadLetter).String()
	if _, err := admin.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic}); err != nil {
		t.Fatal(err)
	}
}

func TestDeployedFunctionSendsPushedWhispers(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		startPubSub(t, env)

		srv, err := twitch.New()
		if err != nil {
			t.Fatal(err)
		}
		defer srv.Close()
		bot, err := srv.AddUser(twitch.User{Login: "parley"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := srv.AddUser(twitch.User{ID: "123", Login: "ada"}); err != nil {
			t.Fatal(err)
		}
		app, err := srv.AddApp(twitch.App{})
		if err != nil {
			t.Fatal(err)
		}
		granted, err := srv.AddToken(twitch.Token{UserID: bot.ID, ClientID: app.ID, Scopes: []string{scope}})
		if err != nil {
			t.Fatal(err)
		}

		r := newRig(t, env, nil) // for the ledger
		key := "file:" + filepath.Join(t.TempDir(), "key")
		environ := []string{
			"GOOGLE_CLOUD_PROJECT=" + env.Project, "CREDENTIAL_KEY=" + key, "TWITCH_CLIENT_ID=" + app.ID, "TWITCH_CLIENT_SECRET=" + app.Secret,
			"TWITCH_BOT_USER_ID=" + bot.ID, "TWITCH_API_URL=" + srv.HelixURL(), "TWITCH_OAUTH_URL=" + strings.TrimSuffix(srv.OAuthURL(), "/oauth2"),
		}
		whisper, err := build(t.Context(), environ)
		if err != nil {
			t.Fatal(err)
		}
		push := func(in bus.Incoming) {
			t.Helper()
			for range 5 {
				if err := whisper(t.Context(), pushed(t, in)); err != nil {
					t.Fatal(err)
				}
			}
		}

		early := r.send(t, "c0", nil)
		push(early)
		if e := r.entry(t, early); e.Reason != string(deadletter.LoginNeeded) {
			t.Errorf("before the bot's login: %q for %q: %s", e.State, e.Reason, e.Message)
		}

		opened, err := credential.OpenKey(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		id, err := identity.New(identity.Twitch, bot.ID)
		if err != nil {
			t.Fatal(err)
		}
		login := credential.NewKeeper(credential.Dependencies{Firestore: r.client, Key: opened, Log: r.deps.Log, Now: time.Now})
		if err := login.Put(t.Context(), id, credential.Token{
			User: id, Access: credential.NewSecret(granted.Access), Refresh: credential.NewSecret(granted.Refresh),
			Scopes: granted.Scopes, Expires: granted.ExpiresAt, Validated: time.Now(),
		}); err != nil {
			t.Fatal(err)
		}

		in := r.send(t, "c1", nil)
		push(in)
		srv.Revoke(granted.Access) // and the refresh token: the next whisper is postponed or dead, not sent
		gone := r.send(t, "c2", nil)
		push(gone)

		var got []string
		for _, w := range srv.Whispers("ada") {
			got = append(got, w.FromUserID+": "+w.Text)
		}
		if want := []string{bot.ID + ": hello you"}; !slices.Equal(got, want) {
			t.Errorf("ada got %q; want %q", got, want)
		}
		if e := r.entry(t, in); e.State != delivery.Delivered {
			t.Errorf("the entry is %q for %q: %s", e.State, e.Reason, e.Message)
		}
		if e := r.entry(t, gone); e.Reason != string(deadletter.LoginNeeded) || !strings.Contains(e.Message, "/oauth/twitch/login") {
			t.Errorf("after the token was revoked: %q for %q: %s", e.State, e.Reason, e.Message)
		}
	}, emulatortest.InEnvironment)
}

func TestFunctionStartsWithoutTwitch(t *testing.T) {
	emulatortest.Firestore(t, func(t *testing.T, env emulatortest.Env) {
		startPubSub(t, env)
		r := newRig(t, env, nil)
		whisper, err := build(t.Context(), []string{"GOOGLE_CLOUD_PROJECT=" + env.Project})
		if err != nil {
			t.Fatal(err)
		}
		in := r.send(t, "c1", nil)
		if err := whisper(t.Context(), pushed(t, in)); err != nil {
			t.Fatal(err)
		}
		if e := r.entry(t, in); e.Reason != string(deadletter.NotConfigured) || !strings.Contains(e.Message, "TWITCH_CLIENT_ID and TWITCH_BOT_USER_ID") {
			t.Errorf("the entry is %q for %q: %s", e.State, e.Reason, e.Message)
		}
		if _, err := build(t.Context(), []string{"TWITCH_CLIENT_ID=c"}); err == nil || !strings.Contains(err.Error(), "TWITCH_CLIENT_SECRET: ") || !strings.Contains(err.Error(), "GOOGLE_CLOUD_PROJECT: ") {
			t.Errorf("build = %v; want what is wrong with the configuration", err)
		}
	}, emulatortest.InEnvironment)
}
