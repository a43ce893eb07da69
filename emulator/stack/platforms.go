package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/firestore"

	"parley.internal/emulator/discord"
	"parley.internal/emulator/playground"
	"parley.internal/emulator/twitch"
	"parley.internal/gateway/oauth"
	"parley.internal/shared/config"
	"parley.internal/shared/credential"
	"parley.internal/shared/identity"
)

// The bots on the fakes.
const (
	botName      = "parley"
	twitchBotID  = "9000"
	discordBotID = "9000"
	guildID      = "3000"
)

// Platforms holds the fakes of Twitch and Discord with the seeded people, and the playground page. A fake is nil if the
// environment configures the real platform.
type Platforms struct {
	Twitch  *twitch.Server
	Discord *discord.Server

	page *http.Server // nil without a page
}

// Close ends the fakes and the page.
func (p Platforms) Close() error {
	var errs []error
	if p.page != nil {
		errs = append(errs, p.page.Close())
	}
	if p.Twitch != nil {
		errs = append(errs, p.Twitch.Close())
	}
	if p.Discord != nil {
		errs = append(errs, p.Discord.Close())
	}
	return errors.Join(errs...)
}

// startPlatforms starts fakes for the platforms not configured by the environment, with the users of the seed. Every
// Twitch user has a channel with the bot; all Discord users are in one guild. It returns additional environment
// variables for the parts. listen is the address of the first gateway.
func startPlatforms(ctx context.Context, environ map[string]string, listen string, seed Seed, dir string, client *firestore.Client) (p Platforms, added map[string]string, err error) {
	added = map[string]string{}
	defer func() {
		if err != nil {
			err = fmt.Errorf("start the platform fakes: %w", errors.Join(err, p.Close()))
		}
	}()
	people := map[identity.Platform][]identity.UserID{}
	for _, id := range slices.Sorted(maps.Keys(seed.Users)) {
		if user, err := identity.Parse(id); err == nil {
			people[user.Platform()] = append(people[user.Platform()], user)
		}
	}
	name := func(id identity.UserID) string {
		display, _ := seed.Users[id.String()]["displayName"].(string)
		if display == "" {
			display = string(id.Platform()) + id.ID()
		}
		return display
	}
	if environ["TWITCH_CLIENT_ID"] == "" {
		if err := credential.CheckBaseURL("http://" + listen); err != nil {
			return p, nil, fmt.Errorf("a login needs a loopback address, and %s is not one: listen on 127.0.0.1 or 0.0.0.0, or omit the fakes (--platforms=false)", listen)
		}
		var more map[string]string
		if p.Twitch, more, err = startTwitch(ctx, people[identity.Twitch], name, "http://"+listen, dir, client); err != nil {
			return p, nil, err
		}
		maps.Copy(added, more)
	}
	if environ["DISCORD_BOT_TOKEN"] == "" {
		var more map[string]string
		if p.Discord, more, err = startDiscord(people[identity.Discord], name); err != nil {
			return p, nil, err
		}
		maps.Copy(added, more)
	}
	return p, added, nil
}

func startTwitch(ctx context.Context, people []identity.UserID, name func(identity.UserID) string, publicURL, dir string, client *firestore.Client) (*twitch.Server, map[string]string, error) {
	s, err := twitch.New()
	if err != nil {
		return nil, nil, err
	}
	bot, err := s.AddUser(twitch.User{ID: twitchBotID, Login: botName})
	if err != nil {
		return s, nil, err
	}
	var channels, allowed []string
	for _, id := range people {
		login := strings.ToLower(name(id))
		if _, err := s.AddUser(twitch.User{ID: id.ID(), Login: login, DisplayName: name(id)}); err != nil {
			return s, nil, err
		}
		// like broadcasters with a bot that moderates
		if err := s.SetRole(login, botName, twitch.Role{Moderator: true}); err != nil {
			return s, nil, err
		}
		channels, allowed = append(channels, login), append(allowed, id.String())
	}
	if len(channels) > 0 {
		if err := s.LogIn(channels[0]); err != nil { // in the browser that opens a login page
			return s, nil, err
		}
	}
	app, err := s.AddApp(twitch.App{Name: botName, RedirectURIs: []string{publicURL + oauth.CallbackPath}})
	if err != nil {
		return s, nil, err
	}
	environ := map[string]string{
		"TWITCH_CLIENT_ID": app.ID, "TWITCH_CLIENT_SECRET": app.Secret, "TWITCH_BOT_USER_ID": bot.ID,
		"TWITCH_OAUTH_URL": s.OAuthURL(), "TWITCH_API_URL": s.HelixURL(),
		"TWITCH_EVENTSUB_URL": s.EventSubURL(),
		"TWITCH_IRC_ADDR":     s.IRCAddr(), "TWITCH_IRC_TLS": "false", "TWITCH_CHANNELS": strings.Join(channels, ","),
		"CREDENTIAL_KEY": "file:" + filepath.Join(dir, "credential.key"), "PUBLIC_URL": publicURL,
		"OAUTH_ALLOWED_USERS": strings.Join(allowed, ","),
	}
	return s, environ, LogInBot(ctx, s, app, bot, environ, client)
}

// LogInBot stores a token of the bot, like a login at /oauth/twitch/login. environ is the environment of the parts: it
// names the app of the token, and the key that encrypts the token.
func LogInBot(ctx context.Context, s *twitch.Server, app twitch.App, bot twitch.User, environ map[string]string, client *firestore.Client) error {
	c, err := config.Load[oauth.Config](environList(environ))
	if err != nil {
		return err
	}
	token, err := s.AddToken(twitch.Token{UserID: bot.ID, ClientID: app.ID, Scopes: c.BotScopes})
	if err != nil {
		return err
	}
	key, err := credential.OpenKey(ctx, c.Credential.Key)
	if err != nil {
		return err
	}
	id, err := c.Credential.Twitch.Bot()
	if err != nil {
		return err
	}
	keeper := credential.NewKeeper(credential.Dependencies{Firestore: client, Key: key, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	return keeper.Put(ctx, id, credential.Token{
		User: id, Access: credential.NewSecret(token.Access), Refresh: credential.NewSecret(token.Refresh),
		Scopes: token.Scopes, Login: bot.Login, Expires: token.ExpiresAt,
	})
}

func startDiscord(people []identity.UserID, name func(identity.UserID) string) (*discord.Server, map[string]string, error) {
	s, err := discord.New()
	if err != nil {
		return nil, nil, err
	}
	bot, err := s.AddBot(discord.Bot{User: discord.User{ID: discordBotID, Name: botName}, Privileged: discord.IntentMessageContent | discord.IntentGuildMembers})
	if err != nil {
		return s, nil, err
	}
	for _, id := range people {
		if _, err := s.AddUser(discord.User{ID: id.ID(), Name: strings.ToLower(name(id)), GlobalName: name(id)}); err != nil {
			return s, nil, err
		}
	}
	owner := bot.ID
	if len(people) > 0 {
		owner = people[0].ID()
	}
	guild, err := s.AddGuild(discord.Guild{ID: guildID, Name: "Parley", OwnerID: owner})
	if err != nil {
		return s, nil, err
	}
	for i, channel := range []string{"general", "games"} {
		if _, err := s.AddChannel(discord.Channel{ID: fmt.Sprint(3001 + i), GuildID: guild.ID, Name: channel}); err != nil {
			return s, nil, err
		}
	}
	moderator, err := s.AddRole(discord.Role{ID: "3100", GuildID: guild.ID, Name: "Moderators", Permissions: discord.BanMembers | discord.ModerateMembers | discord.ManageMessages})
	if err != nil {
		return s, nil, err
	}
	if _, err := s.AddMember(guild.ID, bot.ID, moderator.ID); err != nil {
		return s, nil, err
	}
	for _, id := range people {
		if id.ID() == owner {
			continue
		}
		if _, err := s.AddMember(guild.ID, id.ID()); err != nil {
			return s, nil, err
		}
	}
	return s, map[string]string{"DISCORD_BOT_TOKEN": bot.Token, "DISCORD_API_URL": s.APIURL(), "DISCORD_ROLES": moderator.Name + "=moderator"}, nil
}

// openPage serves the playground on a free port of the loopback interface, and returns its URL without a last slash.
// The token opens the page's data and the API. Without fakes the URL is empty.
func (p *Platforms) openPage(ctx context.Context, token credential.Secret) (url string, err error) {
	if p.Twitch == nil && p.Discord == nil {
		return "", nil
	}
	bot, err := identity.New(identity.Twitch, twitchBotID)
	if err != nil {
		return "", err
	}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("serve the playground: %w", err)
	}
	p.page = &http.Server{Handler: playground.New(token, p.Twitch, p.Discord, bot), ReadHeaderTimeout: 10 * time.Second}
	go p.page.Serve(lis) // ends with Close; a failure shows in the browser
	return "http://" + lis.Addr().String(), nil
}

// keyDir returns the folder for the key that encrypts the credentials stored by the fakes' logins. The key is kept in
// dataDir, next to the encrypted data. If dataDir is empty, remove deletes the folder after the run.
func keyDir(dataDir string) (dir string, remove func() error, err error) {
	if dataDir != "" {
		if err := os.MkdirAll(dataDir, 0o700); err != nil {
			return "", nil, fmt.Errorf("make the folder for the credential key: %w", err)
		}
		return dataDir, func() error { return nil }, nil
	}
	dir, err = os.MkdirTemp("", "parley-key-")
	if err != nil {
		return "", nil, fmt.Errorf("make a temporary folder for the credential key: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}
