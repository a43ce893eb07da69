package firestore_test

import (
	"context"
	"fmt"
	"log"
	"os"

	client "cloud.google.com/go/firestore"

	"parley.internal/emulator/firestore"
)

// A test starts a server. Google's client finds the server by the environment variable.
func Example() {
	srv, err := firestore.New()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()

	// In a test: t.Setenv.
	os.Setenv("FIRESTORE_EMULATOR_HOST", srv.Addr())
	defer os.Unsetenv("FIRESTORE_EMULATOR_HOST")

	ctx := context.Background()
	c, err := client.NewClient(ctx, "any-project")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Doc("users/ada").Set(ctx, map[string]any{"born": 1815}); err != nil {
		log.Fatal(err)
	}
	users, err := c.Collection("users").Where("born", "<", 1900).Documents(ctx).GetAll()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(users[0].Ref.ID, users[0].Data())
	fmt.Println(srv.Counts().Reads, "read,", srv.Counts().Writes, "write")
	// Output:
	// ada map[born:1815]
	// 1 read, 1 write
}
