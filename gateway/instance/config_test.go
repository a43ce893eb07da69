package instance_test

import (
	"fmt"

	"parley.internal/gateway/instance"
)

func ExampleHTTP_Addr() {
	fmt.Println(instance.HTTP{Port: "8080"}.Addr())
	fmt.Println(instance.HTTP{Port: "8080", Listen: "127.0.0.1:0"}.Addr())
	// Output:
	// :8080
	// 127.0.0.1:0
}
