package soak

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/stack"
	"parley.internal/emulator/twitch"
	"parley.internal/gateway/oauth"
	"parley.internal/shared/identity"
)

const (
	botLogin = "parley"
	botID    = "9000"
	people   = 10 // on each platform
)

// posted is a message posted on a platform, by a person or by the bot.
type posted struct {
	id, channel, replyTo, text string // ids of the platform
	person                     string // author; empty for the bot
	at                         time.Time
	joined                     bool // the bot was in the channel when a person posted
}

// community is a platform from the view of its people and the audit.
type community interface {
	platform() identity.Platform
	channels() []string
	// ask posts a question as one of the people.
	ask(channel string, person int, text string) (posted, error)
	// botPosts returns the bot's messages in a channel, in order.
	botPosts(channel string) []posted
}

// onTwitch is the community on Twitch.
type onTwitch struct {
	*twitch.Server
	names []string // of the channels
}

func (t onTwitch) platform() identity.Platform { return identity.Twitch }
func (t onTwitch) channels() []string          { return t.names }

// joined reports whether the bot is in a channel.
func (t onTwitch) joined(channel string) bool { return slices.Contains(t.Joined(channel), botLogin) }

func (t onTwitch) ask(channel string, person int, text string) (posted, error) {
	joined := t.joined(channel)
	l, err := t.Say(channel, personName(person), text)
	return posted{id: l.ID, channel: channel, text: text, person: l.Login, at: l.At, joined: joined}, err
}

func (t onTwitch) botPosts(channel string) (posts []posted) {
	for _, l := range t.Said(channel) {
		if l.Login == botLogin {
			posts = append(posts, posted{id: l.ID, channel: channel, replyTo: l.ReplyTo, text: l.Text, at: l.At})
		}
	}
	return posts
}

// onDiscord is the community on Discord.
type onDiscord struct {
	*discord.Server
	ids []string // of the channels
}

func (d onDiscord) platform() identity.Platform { return identity.Discord }
func (d onDiscord) channels() []string          { return d.ids }

func (d onDiscord) ask(channel string, person int, text string) (posted, error) {
	joined := d.Connected(botID) > 0
	m, err := d.Say(channel, fmt.Sprint(2000+person), text)
	return posted{id: m.ID, channel: channel, text: text, person: m.Author.Name, at: m.At, joined: joined}, err
}

func (d onDiscord) botPosts(channel string) (posts []posted) {
	for _, m := range d.Said(channel) {
		if m.Author.ID == botID {
			posts = append(posts, posted{id: m.ID, channel: channel, replyTo: m.ReplyTo, text: m.Text, at: m.At})
		}
	}
	return posts
}

func personName(i int) string { return fmt.Sprintf("person%d", i) }

// startTwitch starts the fake of Twitch without rate limits, with the bot as moderator of every channel.
func (s *platformSoak) startTwitch(ctx context.Context) (err error) {
	if s.twitch.Server, err = twitch.New(twitch.WithLimits(twitch.Limits{Helix: twitch.Window{N: 1_000_000, Per: time.Minute}})); err != nil {
		return err
	}
	bot, err := s.twitch.AddUser(twitch.User{ID: botID, Login: botLogin})
	if err != nil {
		return err
	}
	for i := range people {
		if _, err := s.twitch.AddUser(twitch.User{ID: fmt.Sprint(1000 + i), Login: personName(i)}); err != nil {
			return err
		}
	}
	for i := range s.options.Channels {
		name := fmt.Sprintf("channel%d", i)
		if _, err := s.twitch.AddUser(twitch.User{ID: fmt.Sprint(5000 + i), Login: name}); err != nil {
			return err
		}
		if err := s.twitch.SetRole(name, botLogin, twitch.Role{Moderator: true}); err != nil {
			return err
		}
		s.twitch.names = append(s.twitch.names, name)
	}
	public := "http://localhost" // never opened: no user logs in
	app, err := s.twitch.AddApp(twitch.App{Name: botLogin, RedirectURIs: []string{public + oauth.CallbackPath}})
	if err != nil {
		return err
	}
	environ := map[string]string{
		"TWITCH_CLIENT_ID": app.ID, "TWITCH_CLIENT_SECRET": app.Secret, "TWITCH_BOT_USER_ID": bot.ID,
		"TWITCH_OAUTH_URL": s.twitch.OAuthURL(), "TWITCH_API_URL": s.twitch.HelixURL(),
		"TWITCH_IRC_ADDR": s.twitch.IRCAddr(), "TWITCH_IRC_TLS": "false", "TWITCH_CHANNELS": strings.Join(s.twitch.names, ","),
		"CREDENTIAL_KEY": "file:" + filepath.Join(s.Dir, "credential.key"), "PUBLIC_URL": public,
	}
	for name, value := range environ {
		s.Environ = append(s.Environ, name+"="+value)
	}
	return stack.LogInBot(ctx, s.twitch.Server, app, bot, environ, s.client)
}

// startDiscord starts the fake of Discord without rate limits, with all people and the bot in every guild.
func (s *platformSoak) startDiscord() (err error) {
	unlimited := discord.Window{N: 1_000_000, Per: time.Minute}
	if s.discord.Server, err = discord.New(discord.WithLimits(discord.Limits{
		Global: unlimited, Messages: unlimited, Routes: unlimited, Sessions: discord.Window{N: 1000, Per: 24 * time.Hour},
	})); err != nil {
		return err
	}
	bot, err := s.discord.AddBot(discord.Bot{User: discord.User{ID: botID, Name: botLogin}, Privileged: discord.IntentMessageContent | discord.IntentGuildMembers})
	if err != nil {
		return err
	}
	for i := range people {
		if _, err := s.discord.AddUser(discord.User{ID: fmt.Sprint(2000 + i), Name: personName(i)}); err != nil {
			return err
		}
	}
	for i := range s.options.Guilds {
		guild, err := s.discord.AddGuild(discord.Guild{ID: fmt.Sprint(3000 + 10*i), Name: fmt.Sprintf("Guild %d", i), OwnerID: "2000"})
		if err != nil {
			return err
		}
		for j, name := range []string{"general", "games"} {
			c, err := s.discord.AddChannel(discord.Channel{ID: fmt.Sprint(3001 + 10*i + j), GuildID: guild.ID, Name: name})
			if err != nil {
				return err
			}
			s.discord.ids = append(s.discord.ids, c.ID)
		}
		for member := 1; member < people; member++ { // person 0 owns the guild and is a member already
			if _, err := s.discord.AddMember(guild.ID, fmt.Sprint(2000+member)); err != nil {
				return err
			}
		}
		if _, err := s.discord.AddMember(guild.ID, bot.ID); err != nil {
			return err
		}
	}
	s.Environ = append(s.Environ, "DISCORD_BOT_TOKEN="+bot.Token, "DISCORD_API_URL="+s.discord.APIURL())
	return nil
}
