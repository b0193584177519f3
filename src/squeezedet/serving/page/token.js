// The dialog that asks for the server's token.

const FORM = `<form method="dialog">
  <h2 id="ask-title"></h2>
  <p class="quiet">The page keeps it until this tab is closed.</p>
  <label class="field">Token <input id="token" type="password" autocomplete="off" required pattern="[!-~]+"></label>
  <div class="buttons"><button class="main">Go on</button></div>
</form>`;

/** What the visitor gives; `wrong`: what was given before is not it. */
export async function askToken(wrong) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "ask-title");
  dialog.innerHTML = FORM;
  dialog.querySelector("h2").textContent = wrong ? "That is not this server's token" : "This server asks for its token";
  document.body.append(dialog);
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve));
  dialog.remove();
  return dialog.querySelector("input").value;
}
