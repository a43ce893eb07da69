package discord_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"parley.internal/emulator/discord"
)

func TestMethodsRefuseInvalidArguments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, f := range map[string]func() error{
		"a user without a name": func() error { _, err := w.AddUser(discord.User{}); return err },
		"an invalid id":         func() error { _, err := w.AddUser(discord.User{ID: "x", Name: "x"}); return err },
		"a used name":           func() error { _, err := w.AddUser(discord.User{ID: "5", Name: "viewer"}); return err },
		"a user with a bot's id": func() error {
			_, err := w.AddUser(discord.User{ID: w.bot.ID, Name: "x"})
			return err
		},
		"an intent that is not privileged": func() error {
			_, err := w.AddBot(discord.Bot{User: discord.User{Name: "x"}, Privileged: discord.IntentGuilds})
			return err
		},
		"a used token": func() error {
			_, err := w.AddBot(discord.Bot{User: discord.User{Name: "x"}, Token: w.bot.Token})
			return err
		},
		"a guild without an owner": func() error { _, err := w.AddGuild(discord.Guild{Name: "x"}); return err },
		"a channel without a guild": func() error {
			_, err := w.AddChannel(discord.Channel{Name: "x"})
			return err
		},
		"an unknown role":   func() error { return w.SetRoles(w.guild.ID, w.viewer.ID, "1") },
		"@everyone removed": func() error { return w.RemoveRole(w.guild.ID, w.guild.ID) },
		"the owner leaves":  func() error { return w.RemoveMember(w.guild.ID, w.owner.ID) },
		"the owner banned":  func() error { return w.Ban(w.guild.ID, w.owner.ID, "") },
		"a message of a user who is not a member": func() error {
			_, err := w.Say(w.channel.ID, w.user("stranger").ID, "x")
			return err
		},
		"a reply to an unknown message": func() error {
			_, err := w.Say(w.channel.ID, w.viewer.ID, "x", discord.ReplyingTo("1"))
			return err
		},
		"a message in a voice channel": func() error {
			c, err := w.AddChannel(discord.Channel{GuildID: w.guild.ID, Name: "voice", Type: discord.VoiceChannel})
			w.must(err)
			_, err = w.Say(c.ID, w.viewer.ID, "x")
			return err
		},
		"direct messages of two users":  func() error { _, err := w.SayDM(w.viewer.ID, w.owner.ID, "x"); return err },
		"an edit of an unknown message": func() error { _, err := w.Edit(w.channel.ID, "1", "x"); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSeedingTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	again, err := w.AddUser(discord.User{Name: "viewer", GlobalName: "The Viewer"})
	w.must(err)
	bot, err := w.AddBot(discord.Bot{User: discord.User{ID: w.bot.ID, Name: "bot"}})
	w.must(err)
	if again.ID != w.viewer.ID || bot != w.bot {
		t.Errorf("the viewer is %+v, and the bot %+v", again, bot)
	}
	_, err = w.AddGuild(w.guild)
	w.must(err)
	_, err = w.AddChannel(w.channel)
	w.must(err)
	if n, m := len(w.Guilds()), len(w.Channels(w.guild.ID)); n != 1 || m != 1 || len(w.Users()) != 3 {
		t.Errorf("%d guilds, %d channels, users %v", n, m, w.Users())
	}
	if u, ok := w.User(w.viewer.ID); !ok || u.GlobalName != "The Viewer" {
		t.Errorf("the viewer is %+v", u)
	}
}

func TestIDsContainTheirCreationTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := w.clock.Now()
	var ids []string
	for range 10 {
		ids = append(ids, w.say(w.viewer.ID, "x").ID)
	}
	if len(slices.Compact(slices.Clone(ids))) != 10 || !slices.IsSorted(ids) {
		t.Errorf("the ids are %v", ids)
	}
	if got, err := discord.IDTime(ids[9]); err != nil || !got.Equal(at) {
		t.Errorf("the time of the last id is %v, %v", got, err)
	}
	if got, err := discord.IDTime(discord.IDAt(at)); err != nil || !got.Equal(at) {
		t.Errorf("the time of IDAt is %v, %v", got, err)
	}
	if _, err := discord.IDTime("x"); err == nil {
		t.Error("the invalid id x has a time")
	}
}

func TestResetTokenInvalidatesTheOldToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, unlimited())
	c, _ := w.identified(0)
	token, err := w.ResetToken(w.bot.ID)
	w.must(err)
	if code := c.closed(); code != discord.CloseAuthenticationFailed {
		t.Errorf("closed with %d", code)
	}
	if r := w.call("GET", "/users/@me", nil); r.status != 401 {
		t.Errorf("status %d with the old token", r.status)
	}
	if r := w.callWith("GET", "/v10/users/@me", "Bot "+token, nil, nil); r.status != 200 {
		t.Errorf("status %d with the new token", r.status)
	}
}

func TestAwaitEndsWithItsContextAndTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := w.Await(ctx, func() bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	w.hello()
	w.must(w.Close())
	if err := w.Await(t.Context(), func() bool { return false }); !errors.Is(err, discord.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func FuzzMentions(f *testing.F) {
	for _, text := range []string{"<@1>", "<@!1> <@&2>", "@everyone@here", "<@99999999999999999999>", "<@<@1>>", ""} {
		f.Add(text)
	}
	srv, err := discord.New()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = srv.Close() })
	u, err := srv.AddUser(discord.User{ID: "1", Name: "one"})
	if err != nil {
		f.Fatal(err)
	}
	g, err := srv.AddGuild(discord.Guild{ID: "2", Name: "Home", OwnerID: u.ID})
	if err != nil {
		f.Fatal(err)
	}
	c, err := srv.AddChannel(discord.Channel{GuildID: g.ID, Name: "general"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := srv.Say(c.ID, u.ID, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range m.Mentions {
			if id != u.ID {
				t.Errorf("%q mentions %s", text, id)
			}
		}
		if len(m.MentionRoles)+len(m.Pings) != 0 {
			t.Errorf("%q mentions the roles %v and pings %v", text, m.MentionRoles, m.Pings)
		}
	})
}

func TestAsTypedAppliesPermissionsAndTimeOuts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		arrange func(w *world)
		refused bool
	}{
		{"nothing in the way", func(*world) {}, false},
		{"timed out", func(w *world) { w.must(w.TimeOut(w.guild.ID, w.viewer.ID, time.Minute)) }, true},
		{"a time-out that is over", func(w *world) {
			w.must(w.TimeOut(w.guild.ID, w.viewer.ID, time.Minute))
			w.clock.Advance(time.Minute)
		}, false},
		{"muted by a role", func(w *world) {
			w.channel.Overwrites = []discord.Overwrite{{ID: w.guild.ID, Deny: discord.SendMessages}}
			_, err := w.AddChannel(w.channel)
			w.must(err)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.arrange(w)
			_, err := w.Say(w.channel.ID, w.viewer.ID, "hello", discord.AsTyped())
			if said := len(w.Said(w.channel.ID)); (err != nil) != c.refused || (said == 0) != c.refused {
				t.Errorf("error %v, %d messages posted", err, said)
			}
			if _, err := w.SayDM(w.viewer.ID, w.bot.ID, "hello", discord.AsTyped()); err != nil {
				t.Errorf("a direct message: %v", err)
			}
		})
	}
}
