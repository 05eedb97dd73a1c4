// Drives IPVS with the library that Docker's swarm, kube-proxy and kube-router use, as they do: one
// handle, whose family's number was learnt on another socket. Says what it reads back, a line each.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/moby/ipvs"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func list(handle *ipvs.Handle) {
	services, err := handle.GetServices()
	must(err)
	for _, s := range services {
		if s.FWMark != 0 {
			fmt.Printf("mark %d %s\n", s.FWMark, s.SchedName)
		} else {
			fmt.Printf("%s:%d %s\n", s.Address, s.Port, s.SchedName)
		}
		dests, err := handle.GetDestinations(s)
		must(err)
		for _, d := range dests {
			fmt.Printf("-> %s:%d method %d weight %d\n", d.Address, d.Port, d.ConnectionFlags, d.Weight)
		}
	}
}

func main() {
	handle, err := ipvs.New("")
	must(err)
	defer handle.Close()
	if len(os.Args) > 1 && os.Args[1] == "list" {
		list(handle)
		return
	}

	v4 := &ipvs.Service{
		AddressFamily: syscall.AF_INET, Protocol: syscall.IPPROTO_TCP,
		Address: net.ParseIP("203.0.113.1"), Port: 80, SchedName: ipvs.RoundRobin, Netmask: 0xffffffff,
	}
	v6 := &ipvs.Service{
		AddressFamily: syscall.AF_INET6, Protocol: syscall.IPPROTO_UDP,
		Address: net.ParseIP("2001:db8::1"), Port: 53, SchedName: ipvs.LeastConnection, Netmask: 128,
	}
	mark := &ipvs.Service{
		AddressFamily: syscall.AF_INET, FWMark: 7, SchedName: ipvs.RoundRobin, Netmask: 0xffffffff,
	}
	for _, service := range []*ipvs.Service{v4, v6, mark} {
		must(handle.NewService(service))
	}
	if err := handle.NewService(v4); !errors.Is(err, syscall.EEXIST) {
		log.Fatalf("a service that is there: %v", err)
	}

	one := &ipvs.Destination{
		AddressFamily: syscall.AF_INET, Address: net.ParseIP("192.0.2.11"), Port: 8080, Weight: 1,
		ConnectionFlags: ipvs.ConnectionFlagMasq,
	}
	two := &ipvs.Destination{
		AddressFamily: syscall.AF_INET, Address: net.ParseIP("192.0.2.12"), Port: 80, Weight: 2,
		ConnectionFlags: ipvs.ConnectionFlagDirectRoute,
	}
	three := &ipvs.Destination{
		AddressFamily: syscall.AF_INET6, Address: net.ParseIP("2001:db8:1::11"), Port: 53, Weight: 3,
		ConnectionFlags: ipvs.ConnectionFlagTunnel,
	}
	must(handle.NewDestination(v4, one))
	must(handle.NewDestination(v4, two))
	must(handle.NewDestination(v6, three))
	list(handle)

	one.Weight = 9
	must(handle.UpdateDestination(v4, one))
	must(handle.DelDestination(v4, two))
	if err := handle.DelDestination(v4, two); !errors.Is(err, syscall.ENOENT) {
		log.Fatalf("a destination that is not there: %v", err)
	}
	v6.SchedName = ipvs.SourceHashing
	must(handle.UpdateService(v6))
	must(handle.DelService(mark))
	found, err := handle.GetService(v4)
	must(err)
	fmt.Printf("%s:%d is there: %v; the mark is: %v\n", found.Address, found.Port,
		handle.IsServicePresent(v4), handle.IsServicePresent(mark))
	list(handle)

	must(handle.SetConfig(&ipvs.Config{TimeoutTCP: time.Hour, TimeoutUDP: time.Minute}))
	config, err := handle.GetConfig()
	must(err)
	fmt.Println(config.TimeoutTCP, config.TimeoutTCPFin, config.TimeoutUDP)
}
