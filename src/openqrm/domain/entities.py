"""All core entities by name. A new entity is declared in its own module and added to this list."""

from __future__ import annotations

from openqrm.domain.appliance import Appliance
from openqrm.domain.event import Event
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease, Loan
from openqrm.domain.machine import BootTicket, MachineToken
from openqrm.domain.model import Record, registry_of
from openqrm.domain.network import Address, Network, Nic
from openqrm.domain.operation import Controller, Counter, Operation, OperationTarget, StepRecord
from openqrm.domain.plugin_state import PluginState
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.domain.user import EndedSession, Token, User

ENTITIES: dict[str, type[Record]] = registry_of(
    (
        Resource,
        Kernel,
        Storage,
        Volume,
        Image,
        Appliance,
        Network,
        Nic,
        Address,
        PluginState,
        Event,
        Operation,
        StepRecord,
        OperationTarget,
        Controller,
        Counter,
        Lease,
        Loan,
        MachineOrder,
        BootTicket,
        MachineToken,
        User,
        Token,
        EndedSession,
    )
)
