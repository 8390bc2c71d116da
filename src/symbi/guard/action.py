"""The actions that pass the gate, one class for each kind of effect, by the five enforcement points.

An action is a value: who asks, for what, with which arguments and labels. It knows how it is put to the policy
engine (`request`) and how it stands in ledger and trail (`arguments`). The gate hands back a changed copy where
conditions redact, cap, raise the tier, shorten the time or mark what comes back.

| point | actions |
|---|---|
| agent creation and configuration | `CreateAgent`, `ConfigureAgent`; of the whole, `ConfigurePolicies` |
| message sending and routing | `SendMessage`, `PublishMessage`, `SubscribeTopic` |
| resource allocation | `AllocateResources` |
| external tools, code and models | `ConnectServer`, `InvokeTool`, `ExecuteCode`, `RunContainer`, `CallModel` |
| likewise, asked of tool servers | `BrowseServer`, `ReadResource`, `GetPrompt`, `Complete` |
| likewise, asked by tool servers | `ServerSampling`, `ServerElicitation`, `ServerRoots` |
| data access | `ReadData`, `WriteData`, `ExportData`; of labels, `EndorseValue`, `DeclassifyValue` |
"""

from symbi.guard.actions.agents import ConfigureAgent, CreateAgent
from symbi.guard.actions.base import Action, RunSlot, agent_resource
from symbi.guard.actions.body import Canary, DrawRandom, ReadClock, WriteLog
from symbi.guard.actions.containers import RunContainer
from symbi.guard.actions.data import DataRef, ExportData, ReadData, WriteData
from symbi.guard.actions.external import CallModel, ConnectServer, ExecuteCode, InvokeTool, ModelRef, ToolRef
from symbi.guard.actions.messages import PublishMessage, SendMessage, SubscribeTopic, TopicRef
from symbi.guard.actions.operator import ConfigurePolicies
from symbi.guard.actions.release import DeclassifyValue, EndorseValue
from symbi.guard.actions.resources import AllocateResources
from symbi.guard.actions.servers import (
    BrowseServer,
    Complete,
    GetPrompt,
    ReadResource,
    ServerAsks,
    ServerElicitation,
    ServerQuestion,
    ServerRoots,
    ServerSampling,
)

__all__ = [
    "Action",
    "AllocateResources",
    "BrowseServer",
    "CallModel",
    "Canary",
    "Complete",
    "ConfigureAgent",
    "ConfigurePolicies",
    "ConnectServer",
    "CreateAgent",
    "DataRef",
    "DeclassifyValue",
    "DrawRandom",
    "EndorseValue",
    "ExecuteCode",
    "ExportData",
    "GetPrompt",
    "InvokeTool",
    "ModelRef",
    "PublishMessage",
    "ReadClock",
    "ReadData",
    "ReadResource",
    "RunContainer",
    "RunSlot",
    "SendMessage",
    "ServerAsks",
    "ServerElicitation",
    "ServerQuestion",
    "ServerRoots",
    "ServerSampling",
    "SubscribeTopic",
    "ToolRef",
    "TopicRef",
    "WriteData",
    "WriteLog",
    "agent_resource",
]
