package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"parley.internal/emulator/firestore"
	"parley.internal/shared/config"
	"parley.internal/shared/identity"
	"parley.internal/shared/store"
)

// A writer with an old version of the document gets ErrConflict, reads the document again, and decides anew.
func ExampleStore_PutUser() {
	server, err := firestore.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	os.Setenv("FIRESTORE_EMULATOR_HOST", server.Addr())
	defer os.Unsetenv("FIRESTORE_EMULATOR_HOST")
	ctx := context.Background()
	client, err := store.Connect(ctx, config.Deployment{Project: "example", Database: "(default)"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	s := store.New(client)
	id, err := identity.Parse("twitch:123")
	if err != nil {
		fmt.Println(err)
		return
	}

	user, version, err := s.User(ctx, id) // version is zero: the document does not exist yet
	if err != nil {
		fmt.Println(err)
		return
	}
	user.DisplayName = "Ada"
	fmt.Println("first write:", s.PutUser(ctx, id, user, version))
	err = s.PutUser(ctx, id, user, version)
	fmt.Println("second write conflicts:", errors.Is(err, store.ErrConflict))
	// Output:
	// first write: <nil>
	// second write conflicts: true
}
