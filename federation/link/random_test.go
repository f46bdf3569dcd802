package link

import (
	mathrand "math/rand/v2"

	linkv1 "github.com/naru-project/naru/proto/gen/naru/link/v1"
)

type frame = linkv1.Frame

const getVM = "/naru.api.v1.VMService/GetVM"

func newRandom(seed uint64) *mathrand.Rand { return mathrand.New(mathrand.NewPCG(seed, 17)) }
