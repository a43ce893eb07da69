package identity_test

import (
	"errors"
	"fmt"

	"parley.internal/shared/identity"
)

func ExampleParse() {
	id, err := identity.Parse("api-gateway:a:b")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(id.Platform(), id.ID(), id.Ref())

	_, err = identity.Parse("myspace:tom")
	fmt.Println(errors.Is(err, identity.ErrInvalid))
	// Output:
	// api-gateway a:b users/api-gateway:a:b
	// true
}

// An id with a platform keeps it. The default platform is only for ids without a platform.
func ExampleResolve() {
	for _, text := range []string{"123", "twitch:123"} {
		id, err := identity.Resolve(text, identity.APIGateway)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(id)
	}
	// Output:
	// api-gateway:123
	// twitch:123
}

func ExamplePlatformOf() {
	fmt.Println(identity.PlatformOf("ingress.twitch.irc"), identity.PlatformOf("ingress.matrix.room"))
	// Output: twitch matrix
}
