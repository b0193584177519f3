// The dialog that asks for the server's token.

const dialog = document.createElement("dialog");
dialog.id = "ask";
dialog.setAttribute("aria-labelledby", "ask-title");
dialog.innerHTML = `<form method="dialog">
  <h2 id="ask-title"></h2>
  <p class="quiet">The page keeps it until this tab is closed.</p>
  <label class="field">Token <input id="token" type="password" autocomplete="off" required pattern="[!-~]+"></label>
  <div class="buttons"><button class="main">Go on</button></div>
</form>`;
document.body.append(dialog);
const [title, token] = [dialog.querySelector("h2"), dialog.querySelector("input")];

/** What the visitor gives; `wrong`: what was given before is not it. */
export async function askToken(wrong) {
  title.textContent = wrong ? "That is not this server's token" : "This server asks for its token";
  token.value = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return token.value;
}
