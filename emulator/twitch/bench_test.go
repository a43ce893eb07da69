package twitch_test

import (
	"bufio"
	"fmt"
	"net"
	"testing"

	"parley.internal/emulator/twitch"
)

// BenchmarkSay posts a line in a channel with ten reading IRC connections. It measures the capacity of the fake itself.
func BenchmarkSay(b *testing.B) {
	srv, err := twitch.New(twitch.WithLimits(twitch.Limits{}))
	if err != nil {
		b.Fatal(err)
	}
	defer srv.Close()
	for _, login := range []string{"streamer", "viewer"} {
		if _, err := srv.AddUser(twitch.User{Login: login}); err != nil {
			b.Fatal(err)
		}
	}
	// The bursts are too short to overflow a connection's queue.
	const readers, burst = 10, 1000
	received := make(chan struct{}, readers*burst)
	for range readers {
		conn, err := net.Dial("tcp", srv.IRCAddr())
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "CAP REQ :twitch.tv/tags\r\nNICK justinfan1\r\nJOIN #streamer\r\n")
		go func() {
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				if lines.Bytes()[0] == '@' {
					received <- struct{}{}
				}
			}
		}()
	}
	if err := srv.Await(b.Context(), func() bool { return len(srv.Joined("streamer")) == readers }); err != nil {
		b.Fatal(err)
	}
	said := 0
	for b.Loop() {
		if _, err := srv.Say("streamer", "viewer", "hello"); err != nil {
			b.Fatal(err)
		}
		if said++; said == burst {
			for range said * readers {
				<-received
			}
			said = 0
		}
	}
	for range said * readers {
		<-received
	}
}
