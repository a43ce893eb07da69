package twitch_test

import (
	"context"
	"fmt"
	"time"

	irc "github.com/gempir/go-twitch-irc/v4"

	"parley.internal/emulator/twitch"
)

// A bot repeats the messages of a viewer.
func Example() {
	srv, err := twitch.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	for _, login := range []string{"streamer", "viewer"} {
		if _, err := srv.AddUser(twitch.User{Login: login}); err != nil {
			fmt.Println(err)
			return
		}
	}
	bot, _ := srv.AddUser(twitch.User{Login: "bot"})
	app, _ := srv.AddApp(twitch.App{})
	token, err := srv.AddToken(twitch.Token{UserID: bot.ID, ClientID: app.ID, Scopes: []string{"chat:read", "chat:edit"}})
	if err != nil {
		fmt.Println(err)
		return
	}

	client := irc.NewClient(bot.Login, "oauth:"+token.Access)
	client.IrcAddress, client.TLS = srv.IRCAddr(), false
	client.OnPrivateMessage(func(m irc.PrivateMessage) { client.Reply(m.Channel, m.ID, m.User.Name+" said "+m.Message) })
	client.Join("streamer")
	ended := make(chan error, 1)
	go func() { ended <- client.Connect() }()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Await(ctx, func() bool { return len(srv.Joined("streamer")) == 1 }); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := srv.Say("streamer", "viewer", "hello"); err != nil {
		fmt.Println(err)
		return
	}
	if err := srv.Await(ctx, func() bool { return len(srv.Said("streamer")) == 2 }); err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range srv.Said("streamer") {
		fmt.Printf("%s: %s\n", l.Login, l.Text)
	}
	_ = client.Disconnect()
	fmt.Println(<-ended)
	// Output:
	// viewer: hello
	// bot: viewer said hello
	// client called Disconnect()
}
