package discord_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/bwmarrin/discordgo"

	"parley.internal/emulator/discord"
)

// A bot repeats the messages of a viewer.
func Example() {
	srv, err := discord.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	owner, _ := srv.AddUser(discord.User{Name: "owner"})
	viewer, _ := srv.AddUser(discord.User{Name: "viewer"})
	bot, _ := srv.AddBot(discord.Bot{User: discord.User{Name: "bot"}, Privileged: discord.IntentMessageContent})
	guild, _ := srv.AddGuild(discord.Guild{Name: "Home", OwnerID: owner.ID})
	channel, err := srv.AddChannel(discord.Channel{GuildID: guild.ID, Name: "general"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, u := range []discord.User{viewer, bot.User} {
		if _, err := srv.AddMember(guild.ID, u.ID); err != nil {
			fmt.Println(err)
			return
		}
	}

	client, err := discordgo.New("Bot " + bot.Token)
	if err != nil {
		fmt.Println(err)
		return
	}
	client.Client = &http.Client{Transport: redirect{srv.APIURL()}}
	client.Identify.Intents = discordgo.IntentsGuildMessages | discordgo.IntentMessageContent
	client.AddHandler(func(s *discordgo.Session, m *discordgo.MessageCreate) {
		if m.Author.ID != bot.ID {
			_, _ = s.ChannelMessageSendReply(m.ChannelID, m.Author.Username+" said "+m.Content, m.Reference())
		}
	})
	if err := client.Open(); err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := srv.Say(channel.ID, viewer.ID, "hello"); err != nil {
		fmt.Println(err)
		return
	}
	if err := srv.Await(ctx, func() bool { return len(srv.Said(channel.ID)) == 2 }); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range srv.Said(channel.ID) {
		fmt.Printf("%s: %s\n", m.Author.Name, m.Text)
	}
	fmt.Println(client.Close())
	// Output:
	// viewer: hello
	// bot: viewer said hello
	// <nil>
}
